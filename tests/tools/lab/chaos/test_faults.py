"""What a fault really does is seen in test_rows, and in make chaos."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tools.lab.chaos.faults import BY_NAME, FAULTS, REFERENCE
from tools.lab.chaos.system import System

PAIRS = {"cut": "cut", "clog": "clog", "one way": "clog", "delayed": "delay", "flaps": "cut"}


class Links(dict[str, Any]):
    """Proxies that note what is done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def __missing__(self, _name: str) -> Any:
        def note(what: str) -> Any:
            return lambda *_args, **_options: self.done.append(what)

        return SimpleNamespace(
            **{name: note(name) for name in ("cut", "clog", "delay", "hang_up", "heal")}
        )


def test_names_are_given_once() -> None:
    assert len(BY_NAME) == len(FAULTS) + 1
    assert REFERENCE not in FAULTS


@pytest.mark.parametrize("name", [name for name in BY_NAME if "link" in name])
def test_a_fault_of_a_link_begins_and_is_mended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _s: None)
    links = Links()
    system = cast(System, SimpleNamespace(proxies=links))
    fault = BY_NAME[name]
    fault.inject(system)
    expected = next(action for word, action in PAIRS.items() if word in name)
    assert expected in links.done
    if "flaps" not in name:
        assert "heal" not in links.done
        fault.heal(system)
    assert links.done[-1] == "heal"


def test_no_process_to_hurt_is_no_fault() -> None:
    system = cast(System, SimpleNamespace(processes=lambda _kind: []))
    with pytest.raises(RuntimeError, match="no worker"):
        BY_NAME["worker kill"].inject(system)
