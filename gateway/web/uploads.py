"""Receives a request with a file, within limits of size and time: a form, or JSON with the file in
base64. All APIs for files use it."""

from __future__ import annotations

import asyncio
import io
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

import structlog
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from gateway.dialects import base64_audio, openai
from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import HOTWORDS_MAX, storable
from gateway.dialects.strict_json import parse_object
from gateway.web.errors import RefusedError
from gateway.web.form_parser import FormParser

FORM_BYTES_MAX = 1 << 20
"""Size limit of a request without the file."""
FORM_FIELDS_MAX = HOTWORDS_MAX + 32
JSON_BYTES_MAX = 16 << 20
"""Size limit of a request in JSON, which is kept in memory."""
REASON_CHARS_MAX = 200
"""Part of the parser's message that is logged."""
SEND = "send multipart/form-data, or application/json with input_audio"
UPLOAD_SILENCE_S_MAX = 30.0
"""Time from one piece of a request to the next; then 408."""
UPLOAD_BYTES_PER_S_MIN = 1_024
"""Minimum average rate after that time; else 408. A slower client would occupy one of the few slots
of ``UPLOADS_MAX`` for hours."""


def content_type(request: Request) -> str:
    """Return the media type of the body.

    Raises:
        RefusedError: the body is compressed.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        message = "send the body without Content-Encoding; audio files are compressed already"
        raise RefusedError(415, "unsupported_content_encoding", message)
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive(request: Request, file_bytes_max: int) -> FormData:
    """Return the fields of the request, and its file.

    Raises:
        RefusedError: the request is neither a form nor JSON, is compressed, exceeds a limit, or
            stops.
    """
    kind = content_type(request)
    if kind == "multipart/form-data":
        return await _receive_form(request, file_bytes_max)
    if kind == "application/json":
        return await _receive_json(request)
    raise RefusedError(415, "unsupported_content_type", SEND)


async def _receive_form(request: Request, file_bytes_max: int) -> FormData:
    """The parser writes a file beyond 1 MiB to ``TMPDIR``."""
    body = bounded(request, file_bytes_max)
    parser = FormParser(
        request.headers,
        body,
        max_files=1,
        max_fields=FORM_FIELDS_MAX,
        max_part_size=openai.FIELD_BYTES_MAX,
    )
    try:
        return await parser.parse()
    except RefusedError:
        raise
    except MultiPartException as error:
        hint = ""
        if error.message.startswith("Part exceeded"):
            hint = " A part without a filename is a field and not a file."
        structlog.get_logger().info("form_refused", reason=error.message[:REASON_CHARS_MAX])
        raise RefusedError(400, "bad_form", error.message + hint) from error
    except OSError as error:
        structlog.get_logger().error("upload_not_kept", error=str(error))
        message = "the server has no directory, or no room, for the file"
        raise RefusedError(503, "no_upload_space", message) from error
    except (UnicodeError, LookupError) as error:
        raise RefusedError(400, "bad_form", "the charset does not match the text") from error


async def _receive_json(request: Request) -> FormData:
    """``input_audio`` is ``{"data": base64, …}``; the other fields are those of the form."""
    pieces = [piece async for piece in bounded(request, JSON_BYTES_MAX - FORM_BYTES_MAX)]
    try:
        fields = parse_object(b"".join(pieces).decode())
        audio = fields.pop("input_audio", None)
        data = audio.get("data") if isinstance(audio, dict) else audio
        items = [pair for name, value in fields.items() for pair in _as_form(name, value)]
        if data is not None and not isinstance(data, str):
            raise MessageError("input_audio.data must be base64 in a string")
        if data is not None:
            content = io.BytesIO(base64_audio.decode(data, "input_audio.data"))
            items.append(("file", UploadFile(content, filename="input_audio")))
    except MessageError as error:
        raise RefusedError(400, error.code, str(error)) from error
    except UnicodeError as error:
        raise RefusedError(400, "bad_form", "the text is not UTF-8") from error
    return FormData(items)


def _as_form(name: str, value: Any) -> list[tuple[str, str | UploadFile]]:
    """A field of JSON as a form has it: a list is a repeated field."""
    values = value if isinstance(value, list) else [value]
    given = (each for each in values if each is not None)
    return [(name, each if isinstance(each, str) else json.dumps(each)) for each in given]


async def bounded(request: Request, file_bytes_max: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of the request, within the limits of size and time."""
    left = file_bytes_max + FORM_BYTES_MAX
    declared = request.headers.get("content-length", "")
    too_large = RefusedError(
        413, "file_too_large", f"the file may have at most {file_bytes_max} bytes", "file"
    )
    if declared.isdecimal() and int(declared) > left:
        raise too_large
    pieces = aiter(request.stream())
    loop = asyncio.get_running_loop()
    slowest_s = loop.time() + UPLOAD_SILENCE_S_MAX
    while True:
        try:
            async with asyncio.timeout_at(min(slowest_s, loop.time() + UPLOAD_SILENCE_S_MAX)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise RefusedError(499, "client_disconnected", "the client has disconnected") from error
        except TimeoutError as error:
            message = (
                f"no data for {UPLOAD_SILENCE_S_MAX:.0f} s, or less than "
                f"{UPLOAD_BYTES_PER_S_MIN} bytes/s on average"
            )
            raise RefusedError(408, "upload_timeout", message) from error
        left -= len(piece)
        slowest_s += len(piece) / UPLOAD_BYTES_PER_S_MIN
        if left < 0:
            raise too_large
        yield piece


def text_fields(form: FormData) -> dict[str, list[str]]:
    """Return the fields other than the file.

    Raises:
        RefusedError: a name or a text cannot be part of an answer or a row.
    """
    fields: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[storable(name, "a name")].append(storable(value, name))
    except MessageError as error:
        raise RefusedError(400, error.code, str(error)) from error
    return fields
