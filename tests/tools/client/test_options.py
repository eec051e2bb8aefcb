"""What the commands say of errors."""

from __future__ import annotations

import pytest
import typer

from asr_client.exceptions import RefusedError, ServerBusyError, UnreachableError
from asr_client.options import EXIT_USAGE, explain, fail


@pytest.mark.parametrize(
    "error, remedies",
    [
        (RefusedError(401, "{}"), ["access token", "ASR_TOKEN", "--token"]),
        (RefusedError(401, "this token has expired"), ["has expired", "ASR_TOKEN", "--token"]),
        (RefusedError(404, "Not Found"), ["Not Found", "--url", "/ws/asr"]),
        (RefusedError(200, "OK"), ["200", "--url", "/ws/asr"]),
        (ServerBusyError(503, "no worker is ready", 3.0), ["no worker is ready", "3 s"]),
        (UnreachableError("cannot connect to ws://h"), ["ws://h", "--url", "ASR_URL"]),
        (FileNotFoundError(2, "No such file", "a.wav"), ["a.wav: No such file"]),
    ],
)
def test_errors_name_the_flag_and_the_remedy(error: Exception, remedies: list[str]) -> None:
    message = explain(error)
    assert "\n" not in message and "{" not in message
    assert all(remedy in message for remedy in remedies)


def test_a_token_without_the_scope_is_no_matter_of_the_address() -> None:
    message = explain(RefusedError(403, "this token does not have the scope transcribe"))
    assert "scope transcribe" in message and "--url" not in message


def test_a_failure_is_one_line_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        fail("a reason [with] " + "words " * 40, EXIT_USAGE)
    assert caught.value.exit_code == EXIT_USAGE
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: a reason [with] words") and shown.err.count("\n") == 1
