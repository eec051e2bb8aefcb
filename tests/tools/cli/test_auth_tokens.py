"""``asr token``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.web import auth_tokens
from tools.cli.auth_tokens import app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def run(path: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, and standard error."""
    result = CliRunner().invoke(app, arguments, env={"AUTH_TOKENS_FILE": str(path)})
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_add_list_and_remove(path: Path) -> None:
    code, (token,), _ = run(path, "add", "anna")
    assert code == 0 and auth_tokens.AuthTokens(path).name_of(token, 0.0) == "anna"
    assert token not in path.read_text(encoding="ascii")
    assert path.stat().st_mode & 0o777 == 0o600
    _, (other,), _ = run(path, "add", "bo")
    assert run(path, "list") == (0, ["anna", "bo"], "")
    assert run(path, "remove", "anna") == (0, [], "")
    assert list(auth_tokens.read(path)) == ["bo"]
    assert auth_tokens.AuthTokens(path).name_of(other, 0.0) == "bo"


def test_a_name_has_at_most_one_token(path: Path) -> None:
    run(path, "add", "anna")
    before = path.read_bytes()
    code, shown, why = run(path, "add", "anna")
    assert (code, shown) == (1, []) and "anna has a token" in why
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["an na", "", "x" * 65, "a\nb", "ä"])
def test_invalid_names_are_refused(path: Path, name: str) -> None:
    code, shown, why = run(path, "add", name)
    assert (code, shown) == (1, []) and "a name is" in why
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
