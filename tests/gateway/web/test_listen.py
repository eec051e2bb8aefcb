"""Refusals of Deepgram's API for files. Transcripts: tests/integration/test_deepgram.py."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from gateway.server import Server
from gateway.web.errors import answer_errors
from gateway.web.file_transcription import Transcriber
from gateway.web.listen import add_listen
from tests.gateway.web.test_file_transcription import Gateway


async def post(gateway: Gateway, address: str = "/v1/listen", **content: Any) -> httpx2.Response:
    app, server = FastAPI(), cast(Server, gateway)
    answer_errors(app)
    add_listen(app, server, Transcriber(server))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.post(address, **content)


@pytest.mark.parametrize(
    ("address", "content", "code"),
    [
        ("/v1/listen?encoding=mp4", {"content": b"RIFF"}, "INVALID_QUERY_PARAMETER"),
        ("/v1/listen", {"json": {"url": "http://there/a.wav"}}, "NOT_OFFERED"),
        ("/v1/listen", {"files": {"file": ("a.wav", b"RIFF")}}, "NOT_OFFERED"),
    ],
)
async def test_a_request_that_cannot_be_served_is_400(
    address: str, content: dict[str, Any], code: str
) -> None:
    response = await post(Gateway(), address, **content)
    assert (response.status_code, response.json()["err_code"]) == (400, code)


async def test_more_files_than_the_limit_are_refused() -> None:
    response = await post(Gateway(uploads_max=0), content=b"RIFF")
    assert (response.status_code, response.json()["err_code"]) == (429, "TOO_MANY_UPLOADS")
    assert response.headers["Retry-After"]
