from __future__ import annotations

import pytest

from wire import versions


@pytest.mark.parametrize(
    "ours, peers, chosen",
    [
        ((1, 1), (1, 1), 1),
        ((1, 2), (1, 1), 1),
        ((1, 2), (2, 3), 2),
        ((1, 3), (1, 3), 3),
        ((2, 3), (1, 2), 2),
        ((2, 3), (1, 1), None),
        ((1, 1), (2, 2), None),
        ((1, 3), (3, 2), None),
    ],
)
def test_the_highest_common_version_is_chosen(
    ours: tuple[int, int],
    peers: tuple[int, int],
    chosen: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(versions, "VERSION_MIN", ours[0])
    monkeypatch.setattr(versions, "VERSION_MAX", ours[1])
    assert versions.choose(*peers) == chosen
