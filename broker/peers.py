"""Core: gateways and their leases, unregistered workers, and topic subscriptions."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator

from broker import limits as limit
from wire import publication
from wire.messages import ExpectedAudio, Hello


class Gateways:
    """Gateways with a lease. The routing id of a gateway is its ``gateway_id``."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._renewed_s: dict[bytes, float] = {}
        self._expected: dict[bytes, Hello] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._renewed_s)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._renewed_s)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._renewed_s

    @property
    def full(self) -> bool:
        return len(self._renewed_s) >= limit.GATEWAYS_MAX

    def refuse(self, identity: bytes) -> None:
        """End the lease, and serve the gateway no more until it is admitted."""
        self._forget(identity)
        self._refused[identity] = None
        if len(self._refused) > limit.GATEWAYS_MAX:
            self._refused.popitem(last=False)

    def admit(self, identity: bytes) -> None:
        self._refused.pop(identity, None)

    def is_refused(self, identity: bytes) -> bool:
        return identity in self._refused

    def renew(self, identity: bytes, now_s: float) -> None:
        """Begin or extend a lease."""
        self._renewed_s[identity] = now_s

    def expect(self, identity: bytes, hello: Hello) -> None:
        """Note the audio that a gateway expects from its new sessions."""
        self._expected[identity] = hello

    @property
    def expected_audio_rate(self) -> float:
        """Seconds of audio per second, over all gateways and models."""
        return sum(hello.expected_audio_rate for hello in self._expected.values())

    @property
    def expected_audio_rates(self) -> dict[str, float]:
        """The same by served name; ``""``: of gateways that do not know their models."""
        rates: defaultdict[str, float] = defaultdict(float)
        for hello in self._expected.values():
            unnamed = ExpectedAudio(model="", audio_rate=hello.expected_audio_rate)
            for each in hello.expected or (unnamed,):
                rates[each.model] += each.audio_rate
        return rates

    def expire(self, now_s: float) -> list[bytes]:
        """Remove and return the gateways whose lease has ended."""
        expired = [i for i, seen_s in self._renewed_s.items() if now_s - seen_s > self._lease_s]
        for identity in expired:
            self._forget(identity)
        return expired

    def _forget(self, identity: bytes) -> None:
        self._renewed_s.pop(identity, None)
        self._expected.pop(identity, None)

    def extend(self, pause_s: float, now_s: float) -> None:
        """Extend all leases by the time for which the broker itself was stopped."""
        for identity, renewed_s in self._renewed_s.items():
            self._renewed_s[identity] = min(now_s, renewed_s + pause_s)


class UnregisteredWorkers:
    """Workers that have to register first, or that are quarantined."""

    def __init__(self) -> None:
        self._welcomed_s: OrderedDict[bytes, float] = OrderedDict()
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()

    def quarantine(self, identity: bytes) -> None:
        self._quarantined[identity] = None
        if len(self._quarantined) > limit.QUARANTINED_MAX:
            self._quarantined.popitem(last=False)

    def is_quarantined(self, identity: bytes) -> bool:
        return identity in self._quarantined

    def take_welcome(self, identity: bytes, now_s: float) -> bool:
        """Whether the caller must send a ``Welcome`` to ``identity``. Further ones, in reply to its
        messages under way, would make it register again and lose the jobs assigned in between."""
        welcomed_s = self._welcomed_s.get(identity)
        if welcomed_s is not None and now_s - welcomed_s < limit.WELCOME_INTERVAL_S:
            return False
        self._welcomed_s[identity] = now_s
        self._welcomed_s.move_to_end(identity)
        if len(self._welcomed_s) > limit.WORKERS_MAX:
            self._welcomed_s.popitem(last=False)
        return True


class Subscriptions:
    """The topics that have a subscriber."""

    def __init__(self) -> None:
        self._prefixes: set[bytes] = set()

    def change(self, prefix: bytes, *, present: bool) -> bool:
        """Returns False for a prefix of none of our topics. Such a prefix is not kept, which bounds
        the memory that a peer can take."""
        if not any(topic.startswith(prefix) for topic in publication.TOPICS):
            return False
        if present:
            self._prefixes.add(prefix)
        else:
            self._prefixes.discard(prefix)
        return True

    def wanted(self, message: publication.Publication) -> bool:
        return self._has(publication.topic_of(message))

    @property
    def complete(self) -> bool:
        """Whether every topic has a subscriber."""
        return all(map(self._has, publication.TOPICS))

    def _has(self, topic: bytes) -> bool:
        return any(topic.startswith(prefix) for prefix in self._prefixes)


def is_utf8(identity: bytes) -> bool:
    try:
        identity.decode()
    except UnicodeDecodeError:
        return False
    return True
