"""Core: the broker of each session, and when a session moves to another one.

A session gets its broker by rendezvous hashing (the highest hash of broker and session id) over the
brokers that serve. Gateways need no agreement for that, and a lost broker's sessions spread over
all others. A session stays with its broker while that serves, so that a broker that joins or
returns takes new sessions only. It moves once its broker has been silent, or without any worker,
for ``SILENCE_S``, while another one has served throughout. After an outage of all, or a stop of
this gateway, no session moves only because one broker is heard before the others.

The caller sends the unanswered jobs of moved sessions again. The silent broker may still answer
them; a session takes the first result of each.

A broker may serve and yet not reach persistence, or a gateway that has the session of a claim. A
record that was not confirmed in time therefore goes through every live broker, and so do claims.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from gateway.brokers.contact import SILENCE_S
from wire.messages import Cancel, Claim, Job, Record


class _Presence(Struct):
    """Signs of one kind, and since when they come without a gap of ``SILENCE_S``."""

    last_s: float = -math.inf
    since_s: float = math.inf

    def note(self, now_s: float) -> None:
        if not self.lasts(now_s):
            self.since_s = now_s
        self.last_s = now_s

    def lasts(self, now_s: float) -> bool:
        return now_s - self.last_s < SILENCE_S

    def is_steady(self, now_s: float) -> bool:
        return self.lasts(now_s) and now_s - self.since_s >= SILENCE_S


class _Broker:
    def __init__(self) -> None:
        self.heard = _Presence()
        """It reports its load …"""
        self.works = _Presence()
        """… with workers."""


class BrokerChoice:
    """Call ``heard`` with each report, and ``moves`` several times a second."""

    def __init__(self) -> None:
        self._brokers: dict[str, _Broker] = {}
        self._homes: dict[str, str] = {}
        """Brokers by session."""
        self._serving: Sequence[str] = ()

    def add(self, broker: str) -> None:
        self._brokers[broker] = _Broker()
        self._serving = (*self._serving, broker)

    def remove(self, broker: str) -> None:
        """The broker has no address any more. Its sessions move at the next ``moves``."""
        del self._brokers[broker]
        self._serving = [name for name in self._serving if name != broker] or [*self._brokers]

    def heard(self, broker: str, workers: int, now_s: float) -> None:
        """The broker has reported its load."""
        known = self._brokers[broker]
        known.heard.note(now_s)
        if workers:
            known.works.note(now_s)
        self._find_serving(now_s)

    def is_live(self, broker: str, now_s: float) -> bool:
        return self._brokers[broker].heard.lasts(now_s)

    def live(self, now_s: float) -> list[str]:
        return [name for name in self._brokers if self.is_live(name, now_s)]

    def brokers_for(
        self, message: Job | Cancel | Record | Claim, now_s: float, *, again: bool = False
    ) -> list[str]:
        """Where to send ``message``. The session of a job belongs to that broker from now on.
        ``again``: the message was sent before, and not confirmed in time."""
        session_id = message.session_id
        own = self.settle(session_id) if isinstance(message, Job) else self.broker_of(session_id)
        to_all = isinstance(message, Cancel | Claim) or (again and isinstance(message, Record))
        # The own one may have been removed.
        to = [own] if own is not None and own in self._brokers else []
        return [*to, *(name for name in self.live(now_s) if to_all and name not in to)]

    def broker_of(self, session_id: str) -> str | None:
        """The session's broker. That of a session without one is as if it began now; None: there is
        no broker."""
        return self._homes.get(session_id) or self._best(session_id)

    def settle(self, session_id: str) -> str | None:
        """Return ``broker_of``. The session belongs to that broker from now on."""
        broker = self.broker_of(session_id)
        if broker is not None:
            self._homes[session_id] = broker
        return broker

    def forget(self, session_id: str) -> None:
        """The session has ended."""
        self._homes.pop(session_id, None)

    def sessions_of(self, broker: str) -> list[str]:
        return [session_id for session_id, home in self._homes.items() if home == broker]

    def session_counts(self) -> Counter[str]:
        return Counter(self._homes.values())

    def moves(self, now_s: float) -> list[str]:
        """Move the sessions whose broker no longer serves, if another one does. Return them."""
        if not self._find_serving(now_s):
            return []
        moved = [one for one, home in self._homes.items() if home not in self._serving]
        for session_id in moved:
            self._homes[session_id] = self._best(session_id) or self._homes[session_id]
        return moved

    def _find_serving(self, now_s: float) -> bool:
        """Live brokers with workers serve; without any, live ones; without any, all may. Return
        whether one of them has served for long."""
        for kind in ("works", "heard"):
            signs = {name: getattr(each, kind) for name, each in self._brokers.items()}
            serving = [name for name, each in signs.items() if each.lasts(now_s)]
            if serving:
                self._serving = serving
                return any(signs[name].is_steady(now_s) for name in serving)
        self._serving = [*self._brokers]
        return False

    def _best(self, session_id: str) -> str | None:
        return max(self._serving, key=lambda name: _weight(name, session_id), default=None)


def _weight(broker: str, session_id: str) -> bytes:
    return hashlib.blake2b(f"{broker} {session_id}".encode(), digest_size=8).digest()
