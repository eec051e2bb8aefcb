from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from gateway.web.pages import HEADERS, STATIC_DIR, Page, answer, load_pages

ROOT = Path(__file__).resolve().parents[3]
PAGES = load_pages()


def test_files_have_their_types(tmp_path: Path) -> None:
    for name in ("a.html", "b.js", "c.css", "d.svg", "notes.txt"):
        (tmp_path / name).write_text(name)
    found = {name: page.media_type for name, page in load_pages(tmp_path).items()}
    assert found == {
        "a.html": "text/html; charset=utf-8",
        "b.js": "text/javascript; charset=utf-8",
        "c.css": "text/css; charset=utf-8",
        "d.svg": "image/svg+xml; charset=utf-8",
    }


def test_a_page_comes_with_its_guards() -> None:
    response = answer(PAGES["index.html"], if_none_match="", accept_encoding="")
    assert response.status_code == 200
    assert response.body == (STATIC_DIR / "index.html").read_bytes()
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_it_is_compressed_for_those_who_can() -> None:
    page = PAGES["app.js"]
    response = answer(page, if_none_match="", accept_encoding="br;q=1.0, gzip;q=0.8")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(bytes(response.body)) == page.content
    assert len(response.body) < len(page.content) / 2


@pytest.mark.parametrize("form", ['W/"{}"', '"{}"', '"other", W/"{}"'])
def test_who_has_it_is_told_so(form: str) -> None:
    page = PAGES["style.css"]
    tag = form.format(page.etag)
    response = answer(page, if_none_match=tag, accept_encoding="gzip")
    assert response.status_code == 304 and not response.body
    assert response.headers["ETag"] == f'W/"{page.etag}"'
    assert response.headers["Cache-Control"] == "no-cache"


def test_another_content_is_another_tag() -> None:
    changed = Page("text/css", b"x", b"x", "another")
    response = answer(changed, if_none_match=f'W/"{PAGES["style.css"].etag}"', accept_encoding="")
    assert response.status_code == 200


def test_nothing_is_asked_of_others_and_nothing_is_inline() -> None:
    for name, page in PAGES.items():
        text = page.content.decode()
        outside = [url for url in re.findall(r"https?://[\w.-]+", text) if "www.w3.org" not in url]
        assert not outside, name
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son\w+=\"", text), name


def test_every_file_is_used() -> None:
    texts = {name: page.content.decode() for name, page in PAGES.items()}
    for name in texts.keys() - {"index.html", "dashboard.html", "reference.html"}:
        assert any(name in text for other, text in texts.items() if other != name), name


def test_every_refusal_is_told_in_words() -> None:
    """In both languages; for an error that is not among them, the server's words are shown."""
    documented = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    sentence = re.search(r"^Refused before the upgrade, .*?; with 403", documented, re.M | re.S)
    assert sentence
    codes = set(re.findall(r"`(\w+)`", sentence[0].partition("}`")[2]))
    assert {"no_worker", "draining"} <= codes
    texts = PAGES["texts.js"].content.decode()
    assert {code for code in codes if texts.count(f'"problem.{code}":') != 2} == set()


def test_every_status_in_the_history_is_told_in_words() -> None:
    schema = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "persistence" / "migrations").glob("*.sql"))
    )
    *_, last = re.findall(r"CHECK \(status IN \((.*?)\)\)", schema, re.S)
    shown = set(re.findall(r"'(\w+)'", last)) - {"completed", "deleted"}
    assert {"active", "lost"} <= shown
    texts = PAGES["texts.js"].content.decode()
    assert {status for status in shown if texts.count(f'"status.{status}":') != 2} == set()
