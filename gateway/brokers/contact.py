"""Core: whether jobs sent to the broker may be lost, and the delay of its answers.

A broker with a new epoch has none of the jobs sent before. After a silence, messages of both
directions may be lost: libzmq drops a connection that is silent for 3 s, with its queues.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

from msgspec import Struct

SILENCE_S = 2.0
"""Time without messages from the broker after which some may be lost. The broker reports its load
four times a second."""
HELLOS_REMEMBERED_MAX = 1_024
"""HELLOs without an answer whose times are kept; the times of further ones are not."""
SETTLE_S = 0.5
"""Delay after such a silence: messages that were not lost arrive first."""


class ContactChanged(Struct, frozen=True, kw_only=True):
    """For the log."""

    event: Literal["broker_found", "broker_restarted", "broker_silence_ended"]
    epoch: str
    silent_s: float


class JobsLost(Struct, frozen=True):
    """Jobs, or their results, may be lost."""


class BrokerContact:
    """The broker's messages as signs of life. Call ``note`` with the epoch of each Welcome and each
    load report."""

    def __init__(self) -> None:
        self.epoch: str | None = None
        self._hellos_s: deque[float] = deque()
        """When the HELLOs without an answer were sent."""
        self._received_s = math.inf
        self._settled_s = math.inf
        """Time from which the next message is followed by ``JobsLost``."""

    def note_hello(self, now_s: float) -> None:
        """A HELLO was sent."""
        if len(self._hellos_s) < HELLOS_REMEMBERED_MAX:
            self._hellos_s.append(now_s)

    def note_welcome(self) -> None:
        """The oldest HELLO is answered."""
        if self._hellos_s:
            self._hellos_s.popleft()

    def answer_delay_s(self, now_s: float) -> float:
        """Age of the oldest unanswered HELLO. It queues behind the jobs sent before it, so this
        grows when the link to the broker is saturated."""
        return now_s - self._hellos_s[0] if self._hellos_s else 0.0

    def reconnected(self, now_s: float) -> None:
        """A new connection to the broker was made. Messages in transit on the previous connection
        are lost, even if the interruption was short."""
        self._hellos_s.clear()
        if self.epoch is not None:
            self._settled_s = min(self._settled_s, now_s + SETTLE_S)

    def note(self, epoch: str, now_s: float) -> list[ContactChanged | JobsLost]:
        silent_s = max(0.0, now_s - self._received_s)
        self._received_s = now_s
        actions: list[ContactChanged | JobsLost] = []
        event: Literal["broker_found", "broker_restarted", "broker_silence_ended"] | None = None
        if epoch != self.epoch:
            # At the first epoch, too: a broker that failed before its WELCOME may have got jobs.
            event = "broker_found" if self.epoch is None else "broker_restarted"
            self.epoch = epoch
            self._settled_s = now_s
        elif silent_s >= SILENCE_S:
            event = "broker_silence_ended"
            self._settled_s = now_s + SETTLE_S
        if event is not None:
            actions.append(ContactChanged(event=event, epoch=epoch, silent_s=silent_s))
        if now_s >= self._settled_s:
            self._settled_s = math.inf
            actions.append(JobsLost())
        return actions
