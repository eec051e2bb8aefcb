"""Events and actions are values: compared by content and never changed."""

from __future__ import annotations

from typing import get_args

import pytest

from broker import events as e
from broker.routing import Broker
from tests.broker.driving import DEFAULTS


def test_the_core_has_a_handler_for_each_event() -> None:
    core = Broker(epoch="epoch", limits=DEFAULTS, system_id="")
    assert set(core._handlers) == set(get_args(e.Event))


@pytest.mark.parametrize("kind", [*get_args(e.Event), *get_args(e.Action)])
def test_events_and_actions_are_immutable_and_documented(kind: type) -> None:
    assert kind.__struct_config__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__


def test_equal_content_is_equal() -> None:
    assert e.Count("overloaded") == e.Count("overloaded") != e.Count("cancelled")
