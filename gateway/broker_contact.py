"""Core: when jobs sent to the broker may be lost.

A broker with a new epoch has none of the jobs sent before. After a silence, messages of both
directions may be lost: libzmq drops a connection that is silent for 3 s, with its queues.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

SILENCE_S = 2.0
"""Time without messages from the broker after which some may be lost. The broker reports its load
four times a second."""
SETTLE_S = 0.5
"""Delay after such a silence, in which delivered messages arrive first."""


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
        self._received_s = math.inf
        self._settled_s = math.inf
        """Time from which the next message is followed by ``JobsLost``."""

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
