"""The WebSocket protocols of the gateway, by path. ``gateway.web`` mounts each of them.

A new protocol is a module in this package that implements ``Dialect``, and a line here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Final

from gateway.dialects.dialect import Dialect
from gateway.dialects.funasr import Funasr
from gateway.dialects.native import Native
from gateway.dialects.vosk import Vosk


def _new_session_id() -> str:
    return str(uuid.uuid4())


DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {
    "/ws/asr": Native,
    "/": lambda: Funasr(_new_session_id),
    "/vosk": lambda: Vosk(_new_session_id),
}
"""Each makes the dialect of one connection."""
