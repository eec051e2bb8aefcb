"""The form of ``POST /v1/audio/transcriptions`` as it comes in: bounded in size and in time."""

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
"""What may stand around the file in a request."""
FORM_FIELDS_MAX = 32
UPLOAD_SILENCE_S_MAX = 30.0
"""From one piece of a request to the next; then 408."""
UPLOAD_BYTES_PER_S_MIN = 1_024
"""On average, after that time; then 408, too: a client could hold one of few places for ever."""


class RefusedError(MultiPartException):
    """The request gets this error. A ``MultiPartException`` makes the parser close its files."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.session_id: str | None = None
        """The session that it ended, if there was one."""


async def receive_form(request: Request, file_bytes_max: int) -> FormData:
    """The request's form. The file goes to the disk as it comes (behind the first MiB)."""
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
        raise RefusedError(400, "bad_form", "its charset does not fit its text") from error


async def bounded(request: Request, file_bytes_max: int) -> AsyncGenerator[bytes, None]:
    """The request's body, as long as it is not too long and keeps coming."""
    left = file_bytes_max + FORM_BYTES_MAX
    declared = request.headers.get("content-length", "")
    too_large = RefusedError(413, "file_too_large", f"at most {file_bytes_max} bytes", "file")
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
            raise RefusedError(
                499, "client_gone", "the client has closed the connection"
            ) from error
        except TimeoutError as error:
            message = "the upload has stopped, or is too slow"
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
