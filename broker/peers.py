"""Who is there besides the workers: gateways and their leases, and peers we don't serve."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from broker import limits as limit
from wire import publication


class Gateways:
    """Gateways heard of within their lease. A gateway's routing id is its ``gateway_id``."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._heard_s: dict[bytes, float] = {}
        self._expected_audio_rate: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._heard_s)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._heard_s)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._heard_s

    @property
    def full(self) -> bool:
        return len(self._heard_s) >= limit.GATEWAYS_MAX

    def hear(self, identity: bytes, now_s: float) -> None:
        self._heard_s[identity] = now_s

    def expect(self, identity: bytes, expected_audio_rate: float) -> None:
        """What its new sessions are yet to bring, in seconds of audio per second."""
        self._expected_audio_rate[identity] = expected_audio_rate

    @property
    def expected_audio_rate(self) -> float:
        return sum(self._expected_audio_rate.values())

    def take_silent(self, now_s: float) -> list[bytes]:
        """Gateways whose lease has ended; they are forgotten."""
        silent = [i for i, heard_s in self._heard_s.items() if now_s - heard_s > self._lease_s]
        for identity in silent:
            del self._heard_s[identity]
            self._expected_audio_rate.pop(identity, None)
        return silent

    def excuse(self, pause_s: float, now_s: float) -> None:
        """We did not listen for ``pause_s``."""
        for identity, heard_s in self._heard_s.items():
            self._heard_s[identity] = min(now_s, heard_s + pause_s)


class Strangers:
    """Workers that are not registered: told to introduce themselves, or quarantined."""

    def __init__(self) -> None:
        self._welcomed_s: OrderedDict[bytes, float] = OrderedDict()
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()

    def quarantine(self, identity: bytes) -> None:
        self._quarantined[identity] = None
        if len(self._quarantined) > limit.QUARANTINED_MAX:
            self._quarantined.popitem(last=False)

    def is_quarantined(self, identity: bytes) -> bool:
        return identity in self._quarantined

    def may_welcome(self, identity: bytes, now_s: float) -> bool:
        """Whether it is time to tell ``identity`` that we don't know it; the caller then does.

        One Welcome makes it introduce itself. More of them, for its other messages under way,
        would make it do so again when it is registered, and lose it the jobs it was given.
        """
        welcomed_s = self._welcomed_s.get(identity)
        if welcomed_s is not None and now_s - welcomed_s < limit.WELCOME_EVERY_S:
            return False
        self._welcomed_s[identity] = now_s
        self._welcomed_s.move_to_end(identity)
        if len(self._welcomed_s) > limit.WORKERS_MAX:
            self._welcomed_s.popitem(last=False)
        return True


class Subscriptions:
    """Which of our topics somebody listens to."""

    def __init__(self) -> None:
        self._prefixes: set[bytes] = set()

    def change(self, prefix: bytes, *, present: bool) -> bool:
        """False: it is a prefix of none of our topics. None such is noted, which bounds what a peer
        can make us keep."""
        if not any(topic.startswith(prefix) for topic in publication.TOPICS):
            return False
        if present:
            self._prefixes.add(prefix)
        else:
            self._prefixes.discard(prefix)
        return True

    def wanted(self, message: publication.Publication) -> bool:
        topic = publication.topic_of(message)
        return any(topic.startswith(prefix) for prefix in self._prefixes)


def is_utf8(identity: bytes) -> bool:
    try:
        identity.decode()
    except UnicodeDecodeError:
        return False
    return True
