"""Receives the form of ``POST /v1/audio/transcriptions`` within limits of size and time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from gateway.dialects import openai

FORM_BYTES_MAX = 1 << 20
"""Size limit of a request without the file."""
FORM_FIELDS_MAX = 32
UPLOAD_SILENCE_S_MAX = 30.0
"""Time from one piece of a request to the next; then 408."""
UPLOAD_BYTES_PER_S_MIN = 1_024
"""Minimum average rate after that time; else 408. A slower client would occupy one of the few
``UPLOADS_MAX`` places for hours."""


class RefusedError(MultiPartException):
    """The answer to the request is this error. A ``MultiPartException`` makes the parser close its
    files."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.session_id: str | None = None
        """The session that it ended, if any."""


async def receive_form(request: Request, file_bytes_max: int) -> FormData:
    """Return the form of the request. The parser writes a file beyond 1 MiB to disk.

    Raises:
        RefusedError: the request is no form, exceeds a limit, or stops.
    """
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise RefusedError(415, "unsupported_content_type", "send multipart/form-data")
    body = bounded(request, file_bytes_max)
    parser = MultiPartParser(
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
        raise RefusedError(400, "bad_form", error.message) from error
    except (UnicodeError, LookupError) as error:
        raise RefusedError(400, "bad_form", "the charset does not match the text") from error


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
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields[name].append(value)
    return fields
