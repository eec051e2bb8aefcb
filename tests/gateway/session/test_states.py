"""The table of a session's states: ``gateway.session.core.TRANSITIONS``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

from gateway.session import events as e
from gateway.session.core import TRANSITIONS
from gateway.session.states import State
from tests.gateway.session_driver import SessionDriver, silence
from tests.test_tidy import ROOT

CLIENT_EVENTS: dict[type, Callable[[SessionDriver], list[e.Answer]]] = {
    e.Start: lambda driver: driver.start(),
    e.Chunk: lambda driver: driver.chunk(silence(10)),
    e.EndUtterance: lambda driver: driver.feed(e.EndUtterance()),
    e.Finish: lambda driver: driver.finish(),
}


def diagram() -> str:
    """The transitions of the table, as lines of a Mermaid diagram."""
    names: defaultdict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, event), (following, _) in TRANSITIONS.items():
        if following is not state:
            names[state, following].append(event.__name__)
    lines = [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in names.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> new", *lines, "```"])


def test_the_diagram_matches_the_table() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, after = architecture.partition("<!-- diagram: session -->\n")
    assert after.startswith(diagram()), f"put this into docs/architecture.md:\n{diagram()}"


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached(state: State) -> None:
    reached = {State.NEW}
    for _ in State:
        reached |= {
            following for (before, _), (following, _) in TRANSITIONS.items() if before in reached
        }
    assert state in reached


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", CLIENT_EVENTS)
def test_a_clients_event_that_the_table_does_not_have_is_bad_state(
    state: State, kind: type
) -> None:
    if (state, kind) in TRANSITIONS:
        return
    driver = SessionDriver()
    driver.session.state = state
    (problem,) = CLIENT_EVENTS[kind](driver)
    assert isinstance(problem, e.Problem) and problem.code == "bad_state"


def test_an_internal_event_missing_in_the_table_is_a_bug() -> None:
    driver = SessionDriver()
    driver.start()
    driver.tick(1.5)
    story = r"AllStored in state active, after: -1\.500 s Start, \+0\.000 s Tick"
    with pytest.raises(AssertionError, match=story):
        driver.feed(e.AllStored())
