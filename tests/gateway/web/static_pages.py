"""The pages and their files as a browser gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.web.pages import FORMATS_MODULE, MEDIA_TYPES, STATIC_DIR, add_pages


@dataclass(frozen=True)
class Served:
    media_type: str
    content: bytes


def client(directory: Path = STATIC_DIR) -> TestClient:
    app = FastAPI(docs_url=None)
    add_pages(app, directory)
    return TestClient(app)


def served_pages() -> dict[str, Served]:
    """Every file by name, the generated one included."""
    visitor = client()
    names = [path.name for path in STATIC_DIR.iterdir() if path.suffix in MEDIA_TYPES]
    answers = {name: visitor.get(f"/static/{name}") for name in (*names, FORMATS_MODULE)}
    return {
        name: Served(answer.headers["Content-Type"], answer.content)
        for name, answer in answers.items()
    }
