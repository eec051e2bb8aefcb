"""The table of faults. test_rows and ``make chaos`` test what a fault does to a system."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tools.lab.chaos.faults import BY_NAME, FAULTS, REFERENCE
from tools.lab.chaos.system import System

PAIRS = {"cut": "cut", "clog": "clog", "one way": "clog", "delayed": "delay", "flaps": "cut"}


class Links(dict[str, Any]):
    """Proxies that record the methods called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __missing__(self, _name: str) -> Any:
        def record(what: str) -> Any:
            return lambda *_args, **_options: self.called.append(what)

        return SimpleNamespace(
            **{name: record(name) for name in ("cut", "clog", "delay", "hang_up", "heal")}
        )


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(FAULTS) + 1
    assert REFERENCE not in FAULTS


@pytest.mark.parametrize("name", [name for name in BY_NAME if "link" in name])
def test_a_fault_of_a_link_is_healed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _s: None)
    links = Links()
    system = cast(System, SimpleNamespace(proxies=links))
    fault = BY_NAME[name]
    fault.inject(system)
    expected = next(action for word, action in PAIRS.items() if word in name)
    assert expected in links.called
    if "flaps" not in name:
        assert "heal" not in links.called
        fault.heal(system)
    assert links.called[-1] == "heal"


def test_without_a_process_to_kill_the_fault_fails() -> None:
    system = cast(System, SimpleNamespace(living=lambda _kind: []))
    with pytest.raises(RuntimeError, match="no asr_worker"):
        BY_NAME["worker kill"].inject(system)
