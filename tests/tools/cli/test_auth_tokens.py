"""``asr token``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.storage.callers import TokenLimits
from gateway.web import auth_tokens
from tools.cli.auth_tokens import app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def run(path: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, and standard error."""
    result = CliRunner().invoke(app, arguments, env={"AUTH_TOKENS_FILE": str(path)})
    return result.exit_code, result.stdout.splitlines(), result.stderr


def name_of(path: Path, token: str) -> str:
    found = auth_tokens.AuthTokens(path).find(token, 0.0)
    assert found is not None
    return found[0]


def test_add_list_and_remove(path: Path) -> None:
    code, (token,), _ = run(path, "add", "anna")
    assert code == 0 and name_of(path, token) == "anna"
    assert token not in path.read_text(encoding="ascii")
    assert path.stat().st_mode & 0o777 == 0o600
    _, (other,), _ = run(path, "add", "bo")
    assert run(path, "list") == (0, ["anna", "bo"], "")
    assert run(path, "remove", "anna") == (0, [], "")
    assert list(auth_tokens.read(path)) == ["bo"]
    assert name_of(path, other) == "bo"


def test_a_name_has_at_most_one_token(path: Path) -> None:
    run(path, "add", "anna")
    before = path.read_bytes()
    code, shown, why = run(path, "add", "anna")
    assert (code, shown) == (1, []) and "anna has a token" in why
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["an na", "", "x" * 65, "a\nb", "ä"])
def test_invalid_names_are_refused(path: Path, name: str) -> None:
    code, shown, why = run(path, "add", name)
    assert (code, shown) == (1, []) and f"no name: {name!r}; a name is" in why
    assert not path.exists()


def test_errors_are_one_line(path: Path) -> None:
    assert "No such file" in run(path, "list")[2]
    run(path, "add", "anna")
    assert "bo has no token" in run(path, "remove", "bo")[2]
    path.chmod(0o644)
    for arguments in (["add", "bo"], ["list"], ["remove", "anna"]):
        code, shown, why = run(path, *arguments)
        assert (code, shown) == (1, []) and "chmod 600" in why and why.count("\n") == 1
    missing = path / "no" / "directory"
    assert run(missing.parent.with_name("gone") / "tokens", "add", "bo")[0] == 1


def test_the_number_of_tokens_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_tokens, "TOKENS_MAX", 1)
    run(path, "add", "anna")
    code, shown, why = run(path, "add", "bo")
    assert (code, shown) == (1, []) and "the maximum" in why


def test_a_token_may_be_limited(path: Path) -> None:
    limits = ["--scope", "read", "--scope", "transcribe", "--tenant", "acme", "--expires"]
    code, (token,), _ = run(path, "add", "anna", *limits, "2999-12-31")
    found = auth_tokens.AuthTokens(path).find(token, 0.0)
    assert code == 0 and found is not None
    name, access = found
    assert (name, access.scopes, access.tenant) == (
        "anna",
        frozenset(("read", "transcribe")),
        "acme",
    )
    assert access.expires == datetime(2999, 12, 31, tzinfo=UTC)
    run(path, "add", "bo")
    _, shown, _ = run(path, "list")
    assert shown == [
        "anna scopes=transcribe,read tenant=acme expires=2999-12-31T00:00:00Z",
        "bo",
    ]
    _, (as_json,), _ = run(path, "list", "--json")
    assert json.loads(as_json)[1] == {
        **{"name": "bo", "scopes": ["transcribe", "read", "admin"]},
        **{"tenant": "default", "expires": None},
        **{"sessions": None, "audio_s_per_day": None, "requests_per_s": None},
    }


def test_a_token_may_have_limits(path: Path) -> None:
    limits = ["--sessions", "3", "--audio-s-per-day", "3600", "--requests-per-s", "20"]
    code, _, _ = run(path, "add", "anna", *limits)
    assert code == 0
    assert auth_tokens.read(path)["anna"].limits == TokenLimits(
        sessions=3, audio_s_per_day=3600, requests_per_s=20
    )
    _, shown, _ = run(path, "list")
    assert shown == ["anna sessions=3 audio_s_per_day=3600 requests_per_s=20"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tenant", "a b"], "no tenant: 'a b'; a tenant is"),
        (["--scope", "write"], "no scope: 'write'; there are transcribe, read, admin"),
        (["--scope", "read", "--scope", ""], "no scope: ''; there are"),
        (["--expires", "2020-01-01"], "--expires: 2020-01-01T00:00:00Z is past"),
        (["--sessions", "0"], "sessions: '0' is not a number from 1 to 1000000000"),
        (
            ["--requests-per-s", "9999999999"],
            "requests_per_s: '9999999999' is not a number from 1 to",
        ),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(
    path: Path, arguments: list[str], why: str
) -> None:
    code, shown, said = run(path, "add", "anna", *arguments)
    assert (code, shown) == (1, []) and why in said
    assert not path.exists()
