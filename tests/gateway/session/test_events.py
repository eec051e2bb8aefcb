"""Every event has a transition, and every action a performer."""

from __future__ import annotations

import typing

from gateway.session import events as e
from gateway.session.core import TRANSITIONS
from gateway.session.runner import PERFORMERS


def test_every_event_is_in_the_table() -> None:
    assert {event for _, event in TRANSITIONS} == set(typing.get_args(e.Event))


def test_every_action_has_a_performer() -> None:
    assert PERFORMERS.keys() == set(typing.get_args(e.Action))
