from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gateway.web import auth_tokens
from gateway.web.auth_tokens import CHECK_EVERY_S, TOKENS_MAX, AuthTokens, AuthTokensError

HASH = auth_tokens.hash_of("secret").hex()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def fill(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_token_may_stand_in_headers_urls_and_subprotocols() -> None:
    made = {auth_tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"asr_[A-Za-z0-9_-]{43}", token) for token in made)


def test_a_written_file_is_read_back(path: Path) -> None:
    known = {"anna": auth_tokens.hash_of("a"), "build.server-2": auth_tokens.hash_of("b")}
    auth_tokens.write(path, known)
    assert auth_tokens.read(path) == known
    assert path.stat().st_mode & 0o777 == 0o600
    assert "anna" in path.read_text(encoding="ascii")
    assert list(path.parent.iterdir()) == [path]


def test_a_symbolic_link_is_kept(path: Path) -> None:
    fill(path.with_name("elsewhere"), "")
    path.symlink_to("elsewhere")
    auth_tokens.write(path, {"anna": auth_tokens.hash_of("a")})
    assert path.is_symlink() and list(auth_tokens.read(path)) == ["anna"]


def test_the_owner_of_the_file_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    fill(path, "")
    monkeypatch.setattr(os, "fchown", lambda _file, user, group: given.append((user, group)))
    auth_tokens.write(path, {})
    assert given == [(path.stat().st_uid, path.stat().st_gid)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("anna\n", "line 1 is not"),
        (f"anna {HASH}\n\n", "line 2 is not"),
        (f"anna {HASH} more\n", "line 1 is not"),
        (f"anna {HASH[:-1]}\n", "line 1 is not"),
        (f"anna {HASH.upper()}\n", "line 1 is not"),
        (f"an/na {HASH}\n", "line 1 is not"),
        (f"ännä {HASH}\n", "line 1 is not"),
        ("anna asr_put_here_by_mistake\n", "line 1 is not"),
        (f"anna {HASH}\nanna {HASH}\n", "line 2 is repeated"),
        ("".join(f"n{i} {HASH}\n" for i in range(TOKENS_MAX + 1)), "more than"),
        ("x" * (auth_tokens.FILE_BYTES_MAX + 1), "more than"),
    ],
)
def test_the_error_names_the_line_and_does_not_show_it(path: Path, text: str, why: str) -> None:
    with pytest.raises(AuthTokensError, match=why) as raised:
        auth_tokens.read(fill(path, text))
    assert "by_mistake" not in str(raised.value) and HASH not in str(raised.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    with pytest.raises(AuthTokensError, match="chmod 600"):
        auth_tokens.read(fill(path, f"anna {HASH}\n", mode))


def test_no_file_and_no_token_are_refused(path: Path) -> None:
    with pytest.raises(AuthTokensError, match="No such file"):
        AuthTokens(path)
    with pytest.raises(AuthTokensError, match="is empty"):
        AuthTokens(fill(path, ""))


def test_a_token_leads_to_its_name(path: Path) -> None:
    auth_tokens.write(
        path, {name: auth_tokens.hash_of(f"of {name}") for name in ("anna", "bo", "cy")}
    )
    known = AuthTokens(path)
    assert [known.name_of(f"of {name}", 0.0) for name in ("cy", "anna", "bo")] == [
        *("cy", "anna", "bo")
    ]
    hashed = auth_tokens.hash_of("of anna").hex()
    for wrong in ("", "of", "of dora", "OF ANNA", hashed, "\udcff", "\x00", "名"):
        assert known.name_of(wrong, 0.0) is None


def test_a_changed_file_is_read_within_a_second(path: Path) -> None:
    auth_tokens.write(path, {"anna": auth_tokens.hash_of("a")})
    known = AuthTokens(path)
    assert known.name_of("a", 100.0) == "anna"
    auth_tokens.write(path, {"bo": auth_tokens.hash_of("b")})
    assert known.name_of("a", 100.0 + CHECK_EVERY_S / 2) == "anna"
    assert known.name_of("a", 100.0 + CHECK_EVERY_S) is None
    assert known.name_of("b", 100.0 + CHECK_EVERY_S) == "bo"
    auth_tokens.write(path, {})
    assert known.name_of("b", 200.0) is None


def test_a_file_that_became_invalid_changes_nothing(path: Path) -> None:
    auth_tokens.write(path, {"anna": auth_tokens.hash_of("a")})
    known = AuthTokens(path)
    fill(path, "half a li")
    assert known.name_of("a", 100.0) == "anna"
    path.unlink()
    assert known.name_of("a", 200.0) == "anna"
    auth_tokens.write(path, {"bo": auth_tokens.hash_of("b")})
    path.chmod(0o644)
    assert known.name_of("a", 300.0) == "anna"
    path.chmod(0o600)
    assert known.name_of("b", 400.0) == "bo"
