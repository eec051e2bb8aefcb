"""Core: the number of idle connections, those whose client has no session.

An idle connection costs memory only, so it may stay for any time. Their number is limited, so that
clients that never send audio cannot take the slots of all others.
"""

from __future__ import annotations

from collections import Counter

from gateway.admission.policy import RETRY_AFTER_FULL_S, Refusal


class IdleConnections:
    """``total_max`` and ``per_address_max`` limit the connections of this gateway that are admitted
    while idle; 0: no limit. A connection whose session ends counts again, and is never closed."""

    def __init__(self, total_max: int, per_address_max: int) -> None:
        self.total = 0
        self._total_max = total_max
        self._per_address_max = per_address_max
        self._by_address: Counter[str] = Counter()

    def add(self, address: str, count: int) -> None:
        """``count`` more connections from ``address`` are idle; negative: fewer."""
        self.total += count
        self._by_address[address] += count
        if not self._by_address[address]:
            del self._by_address[address]

    def refusal(self, address: str) -> Refusal | None:
        """Return the refusal of another connection from ``address``, if any."""
        if 0 < self._total_max <= self.total:
            return _refusal(f"{self.total} connections without a session are open")
        here = self._by_address[address]
        if 0 < self._per_address_max <= here:
            return _refusal(f"{here} connections without a session are open from this address")
        return None


def _refusal(message: str) -> Refusal:
    return Refusal(code="idle_connections", message=message, retry_after_s=RETRY_AFTER_FULL_S)
