"""The pages at ``/``, ``/dashboard`` and ``/docs``, and the files in ``static/`` that they load."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.audio import formats
from gateway.web.schemas import problem

STATIC_DIR = Path(__file__).resolve().parents[1] / "static"
PAGES = {"/": "index.html", "/dashboard": "dashboard.html", "/docs": "docs.html"}
SWAGGER_UI = ("fastapi_swagger", "resources")
"""The package and folder with the files of Swagger UI."""
SWAGGER_POLICY = "; img-src 'self' data:"
"""Swagger UI's style sheet holds its icons."""
FORMATS_MODULE = "audio-formats.js"
"""Generated, so that the page accepts the same files as the server."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
"""Files of other types are not served. Not from ``mimetypes``, which differs between systems."""
WAVESURFER_STYLE = "sha256-qg0uSSfJYaGrLwqWKxYxz65PSr2rsIyu2yQ4eEf3Uws="
"""Hash of the style sheet that ``wavesurfer.js`` puts into its own part of the page."""
HEADERS = {
    # Nothing from other hosts, nothing inline, and no frames around our pages. The page plays
    # recordings and files that never leave the browser (blob:).
    "Content-Security-Policy": (
        "default-src 'self'; media-src blob:; "
        f"style-src 'self' '{WAVESURFER_STYLE}'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Browsers ask each time and get 304, so files of two versions are not mixed.
    "Cache-Control": "no-cache",
}


def add_pages(app: FastAPI, directory: Path = STATIC_DIR) -> None:
    files = GZipMiddleware(StaticPages(directory=directory, packages=[SWAGGER_UI]))
    for path, name in PAGES.items():
        app.router.routes.append(Route(path, File(files, name), methods=["GET"]))
    app.router.routes.append(Route("/static/{name}", File(files), methods=["GET"]))


class File:
    """The endpoint of one file; without ``name``, of the file in the path parameter ``name``."""

    def __init__(self, files: ASGIApp, name: str | None = None) -> None:
        self._files = files
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._name or scope["path_params"]["name"]
        await self._files({**scope, "root_path": "", "path": f"/{name}"}, receive, send)


class StaticPages(StaticFiles):
    """Static files with ``HEADERS``, ``MEDIA_TYPES``, and a JSON 404 for other paths."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        media_type = MEDIA_TYPES.get(Path(path).suffix)
        try:
            if media_type is None:
                raise HTTPException(404)
            if path == FORMATS_MODULE:
                response = Response(formats_module())
            else:
                response = await super().get_response(path, scope)
        except HTTPException as error:
            body = problem("not_found", "no such page")
            return JSONResponse(body, error.status_code, HEADERS)
        headers = response.headers
        headers.update(HEADERS)
        if path == PAGES["/docs"]:
            headers["Content-Security-Policy"] += SWAGGER_POLICY
        if response.status_code == 200:
            headers["Content-Type"] = media_type
        if "ETag" in headers:
            # Weak, because the plain and the compressed bytes are the same page.
            headers["ETag"] = f"W/{headers['ETag'].removeprefix('W/')}"
        return response


def formats_module() -> str:
    """The JavaScript module with the audio formats that the server decodes."""
    signatures = [
        [[offset, list(value)] for offset, value in signature]
        for known in formats.FORMATS
        for signature in known.signatures
    ]
    suffixes = [suffix for known in formats.FORMATS for suffix in known.suffixes]
    return (
        f"export const TITLES = {json.dumps(formats.TITLED)};\n"
        f"export const SUFFIXES = {json.dumps(suffixes)};\n"
        "// Beginnings of files: each a list of [offset, bytes], all of which match.\n"
        f"export const SIGNATURES = {json.dumps(signatures)};\n"
    )
