"""The WebSocket protocols of the gateway, by path. ``gateway.web`` mounts each of them.

A new protocol is a module in this package that implements ``Dialect``, and a line here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.dialects.deepgram import Deepgram, DeepgramFile
from gateway.dialects.dialect import Dialect, Handshake, Query
from gateway.dialects.funasr_realtime import FunasrEither
from gateway.dialects.native import Native
from gateway.dialects.realtime import Realtime
from gateway.dialects.vosk import Vosk


def _new_session_id() -> str:
    return str(uuid.uuid4())


def _deepgram(handshake: Handshake) -> Deepgram:
    return Deepgram(handshake.query, _new_session_id(), datetime.now(UTC))


def deepgram_file(query: Query) -> DeepgramFile:
    """Return the dialect of one file of Deepgram's API. Raises ``MessageError``."""
    return DeepgramFile(query, _new_session_id(), datetime.now(UTC))


NewDialect = Callable[[Handshake], Dialect]
"""Makes the dialect of one connection. Raises ``MessageError``."""

DIALECTS: Final[Mapping[str, NewDialect]] = {
    "/ws/asr": lambda _handshake: Native(),
    "/": lambda _handshake: FunasrEither(_new_session_id),
    "/v1/listen": _deepgram,
    "/v1/realtime": lambda handshake: Realtime(handshake, _new_session_id),
    "/vosk": lambda _handshake: Vosk(_new_session_id),
}
