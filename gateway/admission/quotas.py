"""Enforces the limits of access tokens: this gateway's uses, and those of all gateways from Redis.

The wall clock only selects the day and the second that are counted. Gateways whose clocks differ
count requests in different seconds, and each of them keeps to the limit by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from gateway.admission.policy import Refusal
from gateway.admission.token_uses import DAY_S, OwnUse, TokenUses
from gateway.storage.callers import NO_LIMITS, Caller
from gateway.storage.redis_metadata import EXCHANGE_EVERY_S, RedisMetadata


class Quotas:
    """Call ``run`` on the event loop, until cancelled."""

    def __init__(self, redis_metadata: RedisMetadata) -> None:
        self._redis_metadata = redis_metadata
        self._uses = TokenUses()
        self.enter = self._uses.enter
        self.leave = self._uses.leave

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_EVERY_S)
            if changes := self._uses.changes(time.time()):
                await self._exchange(changes)

    async def refuse_request(self, caller: Caller) -> Refusal | None:
        """Count a request of ``caller``, and return its refusal, if any."""
        if caller.limits.requests_per_s is None:
            return None
        wall_s = time.time()
        refusal = self._uses.requests_refusal(caller, self._uses.note_request(caller, wall_s))
        if refusal is not None:
            return refusal
        count = await self._redis_metadata.count_request(caller.token_name, int(wall_s))
        return self._uses.requests_refusal(caller, count or 0)

    async def refuse_session(self, caller: Caller, *, more: int = 0) -> Refusal | None:
        """Return the refusal of a session of ``caller``, if any. Its connection has entered, or is
        one of ``more`` new ones.

        Own uses are published first: of two gateways that decide at once, one sees both.
        """
        if caller.limits == NO_LIMITS:
            return None
        await self._exchange(self._uses.own(caller, time.time()))
        return self.known_refusal(caller, more=more)

    def known_refusal(self, caller: Caller, *, more: int = 0) -> Refusal | None:
        """The same without a call to Redis. While ``caller`` has a connection, the known uses of
        other gateways are at most ``EXCHANGE_EVERY_S`` old."""
        return self.audio_refusal(caller) or self._uses.sessions_refusal(caller, more=more)

    def audio_refusal(self, caller: Caller) -> Refusal | None:
        """Return the refusal of further audio of ``caller``, if any."""
        return self._uses.audio_refusal(caller, time.time())

    def note_audio(self, caller: Caller, audio_s: float) -> None:
        self._uses.note_audio(caller, audio_s, time.time())

    async def _exchange(self, own: Mapping[str, OwnUse]) -> None:
        wall_s = time.time()
        elsewhere = await self._redis_metadata.exchange_uses(own, int(wall_s) // DAY_S)
        if elsewhere is None:
            self._uses.note_redis_lost()
        else:
            self._uses.note_elsewhere(own, elsewhere, wall_s)
