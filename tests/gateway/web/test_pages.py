"""The pages: how they are served, and what is in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from gateway.audio import formats
from gateway.web.pages import (
    FORMATS_MODULE,
    HEADERS,
    PAGES,
    STATIC_DIR,
    SWAGGER_POLICY,
    WAVESURFER_STYLE,
    formats_module,
)
from tests.gateway.web.static_pages import client, served_pages

ROOT = Path(__file__).resolve().parents[3]
FILES = served_pages()
VISITOR = client()


def test_files_have_their_types_and_others_are_not_served(tmp_path: Path) -> None:
    for name in ("a.html", "b.js", "c.css", "d.svg", "notes.txt"):
        (tmp_path / name).write_text(name)
    visitor = client(tmp_path)
    for name, media_type in {
        "a.html": "text/html; charset=utf-8",
        "b.js": "text/javascript; charset=utf-8",
        "c.css": "text/css; charset=utf-8",
        "d.svg": "image/svg+xml; charset=utf-8",
    }.items():
        answer = visitor.get(f"/static/{name}")
        assert (answer.headers["Content-Type"], answer.text) == (media_type, name)
    assert visitor.get("/static/notes.txt").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_its_security_headers(path: str) -> None:
    answer = VISITOR.get(path)
    assert answer.status_code == 200
    assert answer.content == (STATIC_DIR / PAGES[path]).read_bytes()
    policy = answer.headers["Content-Security-Policy"].removesuffix(SWAGGER_POLICY)
    shown = {name: answer.headers[name] for name in HEADERS}
    assert {**shown, "Content-Security-Policy": policy} == HEADERS
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert VISITOR.head(path).headers["Content-Type"] == "text/html; charset=utf-8"
    assert VISITOR.post(path).status_code == 405


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2Fpages.js", "..%2f..%2fapp.js", "%00.js", "", "a" * 5_000 + ".js"]
)
def test_no_other_file_is_served(name: str) -> None:
    answer = VISITOR.get(f"/static/{name}")
    assert answer.status_code == 404


def test_the_answer_for_an_unknown_file_has_them_too() -> None:
    answer = VISITOR.get("/static/nothing.js")
    assert answer.json()["code"] == "not_found"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("name", ["app.js", "style.css"])
def test_files_are_compressed_if_the_browser_accepts_that(name: str) -> None:
    with VISITOR.stream(
        "GET", f"/static/{name}", headers={"Accept-Encoding": "br;q=1.0, gzip;q=0.8"}
    ) as answer:
        compressed = b"".join(answer.iter_raw())
    plain = VISITOR.get(f"/static/{name}", headers={"Accept-Encoding": "identity"})
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(compressed) < len(plain.content) / 2
    assert "Content-Encoding" not in plain.headers


@pytest.mark.parametrize("form", ["W/{}", "{}", '"other", W/{}'])
def test_a_browser_that_has_the_file_gets_304(form: str) -> None:
    tag = VISITOR.get("/static/style.css").headers["ETag"]
    assert tag.startswith("W/")
    answer = VISITOR.get(
        "/static/style.css", headers={"If-None-Match": form.format(tag.removeprefix("W/"))}
    )
    assert answer.status_code == 304 and not answer.content
    assert answer.headers["ETag"] == tag
    assert answer.headers["Cache-Control"] == "no-cache"


def test_another_content_has_another_tag(tmp_path: Path) -> None:
    page = tmp_path / "a.css"
    page.write_text("one")
    visitor = client(tmp_path)
    tag = visitor.get("/static/a.css").headers["ETag"]
    page.write_text("another")
    assert visitor.get("/static/a.css", headers={"If-None-Match": tag}).status_code == 200


def test_the_page_knows_the_containers_that_the_server_decodes() -> None:
    exports = dict(re.findall(r"export const (\w+) = (.*);", formats_module()))
    assert json.loads(exports["TITLES"]) == list(formats.TITLED)
    assert set(formats.TITLED) < {known.title for known in formats.FORMATS}
    assert ".opus" in json.loads(exports["SUFFIXES"])
    signatures = json.loads(exports["SIGNATURES"])
    assert [[0, list(b"RIFF")], [8, list(b"WAVE")]] in signatures
    assert len(signatures) == sum(len(known.signatures) for known in formats.FORMATS)
    # No second list.
    for name, page in FILES.items():
        assert name == FORMATS_MODULE or "FLAC" not in page.content.decode(), name


def test_pages_use_no_other_host_and_nothing_inline() -> None:
    for name, page in FILES.items():
        text = page.content.decode()
        outside = [url for url in re.findall(r"https?://[\w.-]+", text) if "www.w3.org" not in url]
        assert not outside, name
        if name != "wavesurfer.js":
            inline = r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son\w+=\""
            assert not re.search(inline, text), name


def test_the_style_sheet_of_wavesurfer_is_allowed_by_its_hash() -> None:
    """Only this one: the hash changes with the library and with the height that the page sets."""
    height = re.search(r"height: (\d+)", FILES["player.js"].content.decode())
    library = FILES["wavesurfer.js"].content.decode()
    style = re.search(r"<style\$\{.*?\}>(\\n.*?)</style>", library)
    assert height is not None and style is not None
    text = re.sub(r"\$\{.*?\}(?=px)", height[1], style[1]).replace("\\n", "\n")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"sha256-{digest}" == WAVESURFER_STYLE


def test_every_file_is_used() -> None:
    texts = {name: page.content.decode() for name, page in FILES.items()}
    for name in texts.keys() - {"index.html", "dashboard.html", "docs.html"}:
        assert any(name in text for other, text in texts.items() if other != name), name


def test_every_refusal_has_a_text() -> None:
    """In both languages; for an error that is not among them, the server's words are shown."""
    documented = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    row = re.search(r"^\| 503 \| (.*no_broker.*?) \|", documented, re.M)
    assert row
    codes = set(re.findall(r"`(\w+)`", row[1]))
    assert {"no_worker", "draining"} <= codes
    texts = FILES["texts.js"].content.decode()
    assert {code for code in codes if texts.count(f'"problem.{code}":') != 2} == set()


def test_every_status_in_the_history_has_a_text() -> None:
    schema = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "persistence" / "migrations").glob("*.sql"))
    )
    *_, last = re.findall(r"CHECK \(status IN \((.*?)\)\)", schema, re.S)
    shown = set(re.findall(r"'(\w+)'", last)) - {"completed", "deleted"}
    assert {"active", "lost"} <= shown
    texts = FILES["texts.js"].content.decode()
    assert {status for status in shown if texts.count(f'"status.{status}":') != 2} == set()
