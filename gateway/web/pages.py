"""The pages at ``/``, ``/dashboard`` and ``/docs``, and the files in ``static/`` that they load.

Everything is read once, at start: no path from a request ever reaches the file system.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse

STATIC_DIR = Path(__file__).resolve().parents[1] / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
HEADERS = {
    # Nothing from elsewhere, nothing inline, and no other page may put ours into a frame.
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked for again each time, which costs a 304: files of two versions are never mixed for long.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it is served, plain and compressed."""

    media_type: str
    content: bytes
    compressed: bytes
    etag: str


def load_pages(directory: Path = STATIC_DIR) -> dict[str, Page]:
    """Every servable file in ``directory``, by name."""
    pages: dict[str, Page] = {}
    for path in sorted(directory.iterdir()):
        media_type = _TYPES.get(path.suffix)
        if media_type is None:
            continue
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:32]
        pages[path.name] = Page(media_type, content, gzip.compress(content, mtime=0), digest)
    return pages


def answer(page: Page, *, if_none_match: str, accept_encoding: str) -> Response:
    """``page``, or 304 when the client has it."""
    compress = "gzip" in {part.partition(";")[0].strip() for part in accept_encoding.split(",")}
    # A weak tag: the plain and the compressed bytes are the same page.
    headers = {**HEADERS, "ETag": f'W/"{page.etag}"'}
    if page.etag in {tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    if compress:
        headers["Content-Encoding"] = "gzip"
    content = page.compressed if compress else page.content
    return Response(content, headers=headers, media_type=page.media_type)


def add_pages(app: FastAPI) -> None:
    """Routes for the pages and their files."""
    pages = load_pages()

    def serve(name: str, if_none_match: str, accept_encoding: str) -> Response:
        page = pages.get(name)
        if page is None:
            return JSONResponse({"code": "not_found", "message": "no such page"}, 404, HEADERS)
        return answer(page, if_none_match=if_none_match, accept_encoding=accept_encoding)

    given = Annotated[str, Header()]

    @app.get("/", include_in_schema=False)
    async def home(if_none_match: given = "", accept_encoding: given = "") -> Response:
        return serve("index.html", if_none_match, accept_encoding)

    @app.get("/dashboard", include_in_schema=False)
    async def dashboard(if_none_match: given = "", accept_encoding: given = "") -> Response:
        return serve("dashboard.html", if_none_match, accept_encoding)

    @app.get("/docs", include_in_schema=False)
    async def reference(if_none_match: given = "", accept_encoding: given = "") -> Response:
        return serve("reference.html", if_none_match, accept_encoding)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(
        name: Annotated[str, PathParameter()],
        if_none_match: given = "",
        accept_encoding: given = "",
    ) -> Response:
        return serve(name, if_none_match, accept_encoding)
