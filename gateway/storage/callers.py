"""Core: the client of a request, and the limits of its access token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wire.records import DEFAULT_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """Limits of one access token over all gateways. None: no limit."""

    sessions: int | None = None
    """WebSockets and files being recognised at a time."""
    audio_s_per_day: int | None = None
    """Seconds of audio from midnight to midnight, UTC."""
    requests_per_s: int | None = None
    """HTTP requests a second, upgrades to WebSockets included."""


NO_LIMITS: Final = TokenLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The client of a request, by its address and its token."""

    address: str = ""
    """Empty if it is not known."""
    tenant: str = DEFAULT_TENANT
    token_name: str = ""
    """Empty: the gateway requires no token."""
    limits: TokenLimits = NO_LIMITS


NOBODY: Final = Caller()
