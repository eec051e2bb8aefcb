"""A session's events, recorded as text and replayed into a fresh core.

A recording is Python: a list whose first item makes the session and whose others are the events,
each with its time. Long byte strings are compressed.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from typing import Any

from msgspec import Struct

from gateway.session import endpointer, events, limits, resume
from gateway.session.core import Session
from wire import messages

BYTES_SHOWN_MAX = 32
Recorded = list[tuple[float, events.Event]]


class RecordedSession(Session):
    """A session that keeps its events."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.recorded: Recorded = []
        self._made_with = arguments, options
        self._depth = 0

    def handle(self, event: events.Event, now_s: float) -> list[events.Action]:
        # Events of the session to itself follow from the others.
        if not self._depth:
            self.recorded.append((now_s, event))
        self._depth += 1
        try:
            return super().handle(event, now_s)
        finally:
            self._depth -= 1

    def recording(self) -> str:
        arguments, options = self._made_with
        given = [*map(_source, arguments), *(f"{k}={_source(v)}" for k, v in options.items())]
        lines = [f"Session({', '.join(given)})", *map(_source, self.recorded)]
        return "".join(["[\n", *(f"    {line},\n" for line in lines), "]"])


def replay(recording: str) -> list[list[events.Action]]:
    """The actions after each event of ``recording``, of a new session."""
    names = {"Session": Session, "z": _bytes}
    for module in (endpointer, events, limits, messages, resume):
        names |= vars(module)
    session, *recorded = eval(recording, names)
    return [session.handle(event, now_s) for now_s, event in recorded]


def _source(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > BYTES_SHOWN_MAX:
        return f"z({base64.b85encode(zlib.compress(value)).decode()!r})"
    if isinstance(value, tuple):
        return f"({''.join(f'{_source(item)}, ' for item in value)})"
    if names := _field_names(value):
        given = (f"{name}={_source(getattr(value, name))}" for name in names)
        return f"{type(value).__name__}({', '.join(given)})"
    return repr(value)


def _field_names(value: Any) -> list[str]:
    if isinstance(value, Struct):
        return list(value.__struct_fields__)
    return [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))
