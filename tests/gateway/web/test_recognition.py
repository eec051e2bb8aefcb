"""Refusals of FunASR's API for files. Transcripts: tests/integration/test_dialects.py."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from gateway.server import Server
from gateway.web.errors import answer_errors
from gateway.web.file_transcription import Transcriber
from gateway.web.recognition import add_recognition
from tests.gateway.web.test_file_transcription import Gateway


async def post(gateway: Gateway, **content: Any) -> httpx2.Response:
    app = FastAPI()
    answer_errors(app)
    add_recognition(app, Transcriber(cast(Server, gateway)))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.post("/recognition", **content)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ({"files": {"file": ("a.wav", b"RIFF")}}, 400, "audio: you must provide a file"),
        ({"files": {"audio": ("a.wav", b"")}}, 400, "empty_file"),
        ({"files": {"audio": ("a.wav", b"%PDF-1.7")}}, 400, "a PDF document"),
        ({"data": {"audio": "text"}}, 415, "send multipart/form-data"),
        ({"content": b"", "headers": {"Content-Encoding": "gzip"}}, 415, "content_encoding"),
        ({"files": {"audio": ("a.wav", b"RIFF")}, "data": {"model": "no"}}, 404, "no"),
    ],
)
async def test_refusals_have_funasrs_form(content: dict[str, Any], status: int, said: str) -> None:
    response = await post(Gateway(), **content)
    assert response.status_code == status
    assert response.json()["code"] == 1 and said in response.json()["msg"]


async def test_more_files_than_the_limit_are_refused() -> None:
    response = await post(Gateway(uploads_max=0), files={"audio": ("a.wav", b"RIFF")})
    assert response.status_code == 429 and "too_many_uploads" in response.json()["msg"]
    assert response.headers["Retry-After"]
