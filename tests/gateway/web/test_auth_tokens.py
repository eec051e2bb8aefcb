from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.web import auth_tokens
from gateway.web.auth_tokens import CHECK_EVERY_S, TOKENS_MAX, Access, AuthTokens, AuthTokensError

HASH = auth_tokens.hash_of("secret").hex()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def access(token: str) -> Access:
    """Of a line without further fields."""
    return Access(digest=auth_tokens.hash_of(token))


def name_of(known: AuthTokens, token: str, now_s: float) -> str:
    found = known.find(token, now_s)
    assert found is not None
    return found[0]


def fill(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_token_may_stand_in_headers_urls_and_subprotocols() -> None:
    made = {auth_tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"asr_[A-Za-z0-9_-]{43}", token) for token in made)


def test_a_written_file_is_read_back(path: Path) -> None:
    known = {
        "anna": access("a"),
        "build.server-2": Access(
            digest=auth_tokens.hash_of("b"),
            scopes=frozenset({"read", "transcribe"}),
            tenant="acme",
            expires=datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC),
        ),
    }
    auth_tokens.write(path, known)
    assert auth_tokens.read(path) == known
    assert path.stat().st_mode & 0o777 == 0o600
    anna, other = path.read_text(encoding="ascii").splitlines()
    assert anna == f"anna {auth_tokens.hash_of('a').hex()}"
    assert other.endswith(" scopes=transcribe,read tenant=acme expires=2027-01-31T23:59:59Z")
    assert list(path.parent.iterdir()) == [path]


def test_a_symbolic_link_is_kept(path: Path) -> None:
    fill(path.with_name("elsewhere"), "")
    path.symlink_to("elsewhere")
    auth_tokens.write(path, {"anna": access("a")})
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
        (f"anna {HASH} color=red\n", "line 1: the field 'color' is unknown; there are scopes, ten"),
        (f"anna {HASH} Tenant=a\n", "line 1: the field 'Tenant' is unknown"),
        (f"anna {HASH} asr_by_mistake=\n", "the field .a value of 14 characters, not shown. is un"),
        (f"anna {HASH} tenant=a tenant=b\n", "line 1: the field tenant is repeated"),
        (f"anna {HASH} tenant=a/b\n", "line 1: no tenant: 'a/b'; a tenant is"),
        (
            f"anna {HASH} tenant={'by_mistake/' * 3}\n",
            "no tenant: .a value of 33 characters, not s",
        ),
        (f"anna {HASH} scopes=read,wrte\n", "1: no scope: 'wrte'; there are transcribe, read, a"),
        (f"anna {HASH} scopes=asr_by_mistake,x\n", "no scope: .a value of 14 .*, 'x'; there are"),
        (f"anna {HASH} scopes=\n", "line 1: no scope: ''; there are transcribe"),
        (f"anna {HASH} expires=2027-13-01T00:00:00Z\n", "s: '2027-13-01T00:00:00Z' is not a time"),
        (f"anna {HASH} expires=asr_by_mistake\n", "line 1: expires: .a value of 14 .* is not a ti"),
        (f"anna {HASH} sessions=many\n", "line 1: sessions: 'many' is not a number from 1 to 10"),
        (f"anna {HASH} sessions={'9' * 5_000}\n", "sessions: .a value of 5000 characters, not sho"),
        ("anna asr_put_here_by_mistake\n", "line 1 is not"),
        (f"anna {HASH}\nanna {HASH}\n", "line 2: the name anna is repeated"),
        ("".join(f"n{i} {HASH}\n" for i in range(TOKENS_MAX + 1)), "more than"),
        ("x" * (auth_tokens.FILE_BYTES_MAX + 1), "more than"),
    ],
)
def test_the_error_names_the_line_and_its_field_and_shows_no_token(
    path: Path, text: str, why: str
) -> None:
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


def test_a_fifo_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(AuthTokensError, match="not a regular file"):
        AuthTokens(path)


def test_a_token_leads_to_its_name(path: Path) -> None:
    auth_tokens.write(path, {name: access(f"of {name}") for name in ("anna", "bo", "cy")})
    known = AuthTokens(path)
    for name in ("cy", "anna", "bo"):
        assert known.find(f"of {name}", 0.0) == (name, access(f"of {name}"))
    hashed = auth_tokens.hash_of("of anna").hex()
    for wrong in ("", "of", "of dora", "OF ANNA", hashed, "\udcff", "\x00", "名"):
        assert known.find(wrong, 0.0) is None


def test_a_changed_file_is_read_within_a_second(path: Path) -> None:
    auth_tokens.write(path, {"anna": access("a")})
    known = AuthTokens(path)
    assert name_of(known, "a", 100.0) == "anna"
    auth_tokens.write(path, {"bo": access("b")})
    assert name_of(known, "a", 100.0 + CHECK_EVERY_S / 2) == "anna"
    assert known.find("a", 100.0 + CHECK_EVERY_S) is None
    assert name_of(known, "b", 100.0 + CHECK_EVERY_S) == "bo"
    auth_tokens.write(path, {})
    assert known.find("b", 200.0) is None


def test_a_file_that_became_invalid_changes_nothing(path: Path) -> None:
    auth_tokens.write(path, {"anna": access("a")})
    known = AuthTokens(path)
    fill(path, "half a li")
    assert name_of(known, "a", 100.0) == "anna"
    path.unlink()
    assert name_of(known, "a", 200.0) == "anna"
    auth_tokens.write(path, {"bo": access("b")})
    path.chmod(0o644)
    assert name_of(known, "a", 300.0) == "anna"
    path.chmod(0o600)
    assert name_of(known, "b", 400.0) == "bo"


@pytest.mark.parametrize(("last", "warnings"), [("2020", 2), ("2199", 0)])
def test_a_file_without_a_token_that_is_valid_now_is_logged(
    path: Path, last: str, warnings: int
) -> None:
    lines = [f"a {HASH} expires=2021-01-31T00:00:00Z", f"b {HASH} expires={last}-01-31T00:00:00Z"]
    with capture_logs() as logs:
        known = AuthTokens(fill(path, "\n".join(lines)))
        fill(path, "\n".join(lines[::-1]) + "\n")
        known.find("secret", 100.0)
    expired = [line for line in logs if line["event"] == "auth_tokens_expired"]
    assert len(expired) == warnings


def test_the_end_of_the_last_token_is_logged_while_the_file_is_in_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = AuthTokens(fill(path, f"a {HASH} expires=2199-01-31T00:00:00Z\n"))
    with capture_logs() as logs:
        known.find("secret", 100.0)
        assert logs == []
        monkeypatch.setattr(Access, "expired", lambda _access, _now: True)
        for now_s in (200.0, 300.0):
            known.find("secret", now_s)
    assert [log["event"] for log in logs] == ["auth_tokens_expired"]


def test_a_token_expires_at_its_time() -> None:
    until = datetime(2027, 1, 31, tzinfo=UTC)
    limited = Access(digest=b"", expires=until)
    assert limited.expired(until) and not limited.expired(until - timedelta(seconds=1))
    assert not access("a").expired(until)
