"""Which parts of a form are files, by their headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from starlette.datastructures import Headers, UploadFile

from gateway.web.form_parser import FormParser


@pytest.mark.parametrize(
    ("parameters", "is_file"),
    [
        ('filename="a.wav"', True),
        ("filename*=utf-8''%E5%BD%95.wav", True),  # requests with urllib3 1.24
        ("filename=\"a.wav\"; filename*=utf-8''%E5%BD%95.wav", True),  # .NET
        ("x=y", False),
    ],
)
async def test_a_part_with_a_name_in_either_form_is_a_file(parameters: str, is_file: bool) -> None:
    async def body() -> AsyncGenerator[bytes, None]:
        disposition = f'Content-Disposition: form-data; name="file"; {parameters}'
        for piece in (f"--b\r\n{disposition[:60]}", f"{disposition[60:]}\r\n\r\nRIFF\r\n--b--\r\n"):
            yield piece.encode()

    headers = Headers({"Content-Type": "multipart/form-data; boundary=b"})
    form = await FormParser(headers, body()).parse()
    file = form["file"]
    assert (await file.read() if isinstance(file, UploadFile) else file.encode()) == b"RIFF"
    assert isinstance(file, UploadFile) == is_file
    await form.close()
