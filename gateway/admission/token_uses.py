"""Core: the uses of access tokens with limits, at this gateway and at the others, and refusals.

Each gateway publishes its own sums and reads those of the others, so that a sum published twice
counts once. Without Redis only this gateway's sessions and requests count, and the last known audio
of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.admission.policy import RETRY_AFTER_FULL_S, Refusal
from gateway.storage.callers import NO_LIMITS, Caller

TOO_MANY_REQUESTS = 429
DAY_S = 86_400
SESSIONS_CODE = "too_many_sessions"
AUDIO_CODE = "audio_limit_reached"
REQUESTS_CODE = "too_many_requests"


@dataclass(slots=True)
class _Use:
    sessions: int = 0
    sessions_elsewhere: int = 0
    day: int = 0
    audio_s: float = 0.0
    """Audio sent on ``day``."""
    audio_elsewhere_s: float = 0.0
    second: int = 0
    requests: int = 0
    """Requests in ``second``."""
    changed: bool = False
    """Whether it has changed since ``changes`` were noted as published."""

    def of_day(self, wall_s: float) -> _Use:
        if (day := int(wall_s) // DAY_S) != self.day:
            self.day, self.audio_s, self.audio_elsewhere_s = day, 0.0, 0.0
        return self

    def own(self, wall_s: float) -> OwnUse:
        self.of_day(wall_s)
        return OwnUse(self.sessions, self.audio_s)


class OwnUse(NamedTuple):
    """Use of one token at this gateway."""

    sessions: int
    audio_s: float
    """Audio sent today."""


class TokenUses:
    """Uses of tokens with limits, by their names. ``wall_s`` is seconds since the epoch: days begin
    at midnight, UTC."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def enter(self, caller: Caller) -> None:
        """A connection begins that may have a session."""
        if caller.limits != NO_LIMITS:
            use = self._use(caller)
            use.sessions, use.changed = use.sessions + 1, True

    def leave(self, caller: Caller) -> None:
        """It has ended."""
        if caller.limits != NO_LIMITS:
            use = self._use(caller)
            use.sessions, use.changed = use.sessions - 1, True

    def note_audio(self, caller: Caller, audio_s: float, wall_s: float) -> None:
        if caller.limits != NO_LIMITS:
            use = self._use(caller).of_day(wall_s)
            use.audio_s, use.changed = use.audio_s + audio_s, True

    def note_request(self, caller: Caller, wall_s: float) -> int:
        """Return the number of this second's requests here."""
        use = self._use(caller)
        if int(wall_s) != use.second:
            use.second, use.requests = int(wall_s), 0
        use.requests += 1
        return use.requests

    def requests_refusal(self, caller: Caller, count: int) -> Refusal | None:
        """Return the refusal of the request that is number ``count`` of this second, if any."""
        limit = caller.limits.requests_per_s
        if limit is None or count <= limit:
            return None
        return _refusal(REQUESTS_CODE, f"this token may send {limit} requests a second", 1)

    def sessions_refusal(self, caller: Caller, *, more: int) -> Refusal | None:
        """Return the refusal of ``more`` additional connections, if any."""
        limit = caller.limits.sessions
        if limit is None:
            return None
        use = self._use(caller)
        if use.sessions + use.sessions_elsewhere + more <= limit:
            return None
        message = f"this token may have {limit} sessions at a time"
        return _refusal(SESSIONS_CODE, message, RETRY_AFTER_FULL_S)

    def audio_refusal(self, caller: Caller, wall_s: float) -> Refusal | None:
        """Return the refusal of more audio today, if any."""
        limit_s = caller.limits.audio_s_per_day
        if limit_s is None:
            return None
        use = self._use(caller).of_day(wall_s)
        if use.audio_s + use.audio_elsewhere_s < limit_s:
            return None
        message = f"this token may send {limit_s} s of audio a day; the day begins at 00:00 UTC"
        return _refusal(AUDIO_CODE, message, DAY_S - int(wall_s) % DAY_S)

    def own(self, caller: Caller, wall_s: float) -> dict[str, OwnUse]:
        return {caller.token_name: self._use(caller).own(wall_s)}

    def changes(self, wall_s: float) -> dict[str, OwnUse]:
        """Return the uses to publish: those that have changed, or of tokens in use."""
        uses = self._uses.items()
        return {name: use.own(wall_s) for name, use in uses if use.changed or use.sessions}

    def note_elsewhere(
        self,
        published: Mapping[str, OwnUse],
        elsewhere: Mapping[str, tuple[int, float]],
        wall_s: float,
    ) -> None:
        """The uses ``published`` are known to the others, whose own are ``elsewhere``."""
        for name, own in published.items():
            use = self._uses[name]
            if use.own(wall_s) == own:
                use.changed = False
            use.sessions_elsewhere, use.audio_elsewhere_s = elsewhere[name]

    def note_redis_lost(self) -> None:
        """Nobody knows how many sessions of other gateways have ended."""
        for use in self._uses.values():
            use.sessions_elsewhere = 0

    def _use(self, caller: Caller) -> _Use:
        return self._uses.setdefault(caller.token_name, _Use())


def _refusal(code: str, message: str, retry_after_s: int) -> Refusal:
    return Refusal(
        code=code, message=message, retry_after_s=retry_after_s, status=TOO_MANY_REQUESTS
    )
