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
from gateway.web.uploads import (
    UPLOAD_BYTES_PER_S_MIN,
    UPLOAD_SILENCE_S_MAX,
    bounded,
    receive,
)


class SimulatedTime(asyncio.SelectorEventLoop):
    """Its clock shows the time of the next timer as soon as nothing else is left to do."""

    _now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            timers = self._scheduled  # type: ignore[attr-defined]
            left_s = (timer.when() for timer in timers if not timer.cancelled())
            self._now_s = min(left_s, default=self._now_s)
        super()._run_once()  # type: ignore[misc]


def upload(pieces: Sequence[bytes], every_s: float) -> Request:
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(every_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return Request({"type": "http", "headers": []}, receive)


def received(request: Request) -> tuple[int, float]:
    """Its bytes, or the status with which it is refused, and how many seconds it took."""

    async def take() -> tuple[int, float]:
        try:
            count = sum([len(piece) async for piece in bounded(request, 1 << 20)])
        except RefusedError as refused:
            count = refused.status
        return count, asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(take())


def test_a_slow_upload_that_is_not_too_slow() -> None:
    every_s = UPLOAD_SILENCE_S_MAX / 3
    piece = bytes(round(1.1 * UPLOAD_BYTES_PER_S_MIN * every_s))
    count, took_s = received(upload([piece] * 30, every_s))
    assert count == 30 * len(piece) and took_s == pytest.approx(30 * every_s)


def test_one_that_has_stopped() -> None:
    status, took_s = received(upload([b"x", b"x"], 2 * UPLOAD_SILENCE_S_MAX))
    assert status == 408 and took_s == pytest.approx(UPLOAD_SILENCE_S_MAX)


def test_an_upload_in_small_pieces_without_end_is_refused() -> None:
    status, took_s = received(upload([b"x"] * 1_000, 1.0))
    assert status == 408 and took_s == pytest.approx(UPLOAD_SILENCE_S_MAX, abs=1.0)


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
