"""Core: FunASR's two protocols share a path. A client's first message selects the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.dialects.dialect import Dialect, Parsed
from gateway.dialects.funasr import Funasr
from gateway.dialects.funasr_realtime import FunasrRealtime, is_command
from gateway.session import events as e


class FunasrEither(Dialect):
    """A command as plain text begins the newer protocol; anything else the older one."""

    name = "funasr"

    def __init__(self, new_session_id: Callable[[], str]) -> None:
        self._new_session_id = new_session_id
        self._spoken: Dialect | None = None

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        if self._spoken is None:
            spoken = FunasrRealtime if is_command(message) else Funasr
            self._spoken = spoken(self._new_session_id)
        return self._spoken.parse(message)

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return () if self._spoken is None else self._spoken.encode(answer)
