"""Uploads whose pace is hard to bring about with real clients in a test's time; the rest is tested
in tests/integration."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from gateway.web.errors import RefusedError
from gateway.web.uploads import bounded, receive

SILENCE_S, BYTES_PER_S = 0.3, 1_000


def upload(pieces: Sequence[bytes], every_s: float) -> Request:
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(every_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return Request({"type": "http", "headers": []}, receive)


async def received(request: Request) -> int:
    return sum([len(piece) async for piece in bounded(request, 1 << 20)])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.uploads.UPLOAD_SILENCE_S_MAX", SILENCE_S)
    monkeypatch.setattr("gateway.web.uploads.UPLOAD_BYTES_PER_S_MIN", BYTES_PER_S)


async def test_a_slow_upload_that_is_not_too_slow() -> None:
    """Ten times as long as it may be silent."""
    assert await received(upload([bytes(200)] * 30, 0.1)) == 6_000


async def test_one_that_has_stopped() -> None:
    with pytest.raises(RefusedError) as refused:
        await received(upload([b"x", b"x"], 2 * SILENCE_S))
    assert refused.value.status == 408


async def test_an_upload_in_small_pieces_without_end_is_refused() -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(RefusedError) as refused:
        await received(upload([b"x"] * 1_000, 0.05))
    assert refused.value.status == 408
    assert loop.time() - began_s < 3 * SILENCE_S + 2


async def test_a_file_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a writable directory, and as on a full disk."""

    def nowhere(*_: object, **__: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    request = upload([head, *[bytes(1 << 19)] * 4, b"\r\n--x--\r\n"], 0.0)
    request.scope["headers"] = [(b"content-type", b"multipart/form-data; boundary=x")]
    with pytest.raises(RefusedError) as refused:
        await receive(request, 1 << 24)
    assert (refused.value.status, refused.value.code) == (503, "no_upload_space")
    assert refused.value.retry_after_s
