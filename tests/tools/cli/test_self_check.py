"""The self-check: its recordings, its measure, and a busy server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

import asr_client
from tools.cli import self_check
from tools.cli.self_check import DIGITS, SPEECH, SelfCheckError, hear, similarity

EXPECTED = "Good morning. The train to the city is late today, but the weather is nice."


@pytest.mark.parametrize("path", [*DIGITS, *SPEECH], ids=lambda path: path.name)
def test_every_recording_has_its_text(path: Path) -> None:
    information = sf.info(path)
    assert (information.samplerate, information.channels) == (16_000, 1)
    assert path.with_suffix(".txt").read_text(encoding="utf-8").strip()


def test_recordings_of_speech_are_small() -> None:
    assert all(path.stat().st_size < 100_000 for path in SPEECH)


def test_the_bundled_model_gets_digits() -> None:
    assert self_check.recordings_for(["demo"]) == DIGITS
    assert self_check.recordings_for(["demo", "whisper-base"]) == SPEECH


@pytest.mark.parametrize(
    ("found", "expected", "is_similar"),
    [
        (EXPECTED.upper().replace(".", ""), EXPECTED, True),
        ("Good morning, the train to the city's late today but weather is nice", EXPECTED, True),
        ("我們今天一起去公園散步,天氣很好", "我们今天一起去公园散步，天气很好。", True),
        ("", EXPECTED, False),
        ("Thank you for watching!", EXPECTED, False),
        ("你好", "我们今天一起去公园散步，天气很好。", False),
    ],
)
def test_small_errors_are_similar(found: str, expected: str, is_similar: bool) -> None:
    assert (similarity(found, expected) >= self_check.SIMILARITY_MIN) is is_similar


def server(monkeypatch: pytest.MonkeyPatch, *answers: object) -> list[dict[str, Any]]:
    """``answers`` of the server, one for each session; returns the options of the sessions."""
    waiting, calls = list(answers), []

    def transcribe(path: Path, url: str, **options: Any) -> object:
        calls.append(options)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(asr_client, "transcribe", transcribe)
    return calls


def busy(retry_after_s: float | None) -> asr_client.ServerBusyError:
    return asr_client.ServerBusyError(503, "no capacity", retry_after_s)


def never(_seconds: float) -> bool:
    raise AssertionError("there is nothing to wait for")


def recorded(pauses: list[float]) -> Callable[[float], bool]:
    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    return wait


def test_a_busy_server_is_asked_again_at_the_time_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    result = asr_client.Transcript("text", (), (), 4.9, True)
    calls = server(monkeypatch, busy(7.0), busy(None), result)
    pauses: list[float] = []
    found = hear(SPEECH[1], "ws://x", "token", "en", recorded(pauses))
    assert found is not None and found.text == "text" and found.expected == EXPECTED
    assert pauses == [7.0, self_check.BUSY_PAUSE_S]
    assert {call["language"] for call in calls} == {"en"}


def test_a_server_that_stays_busy_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "TIMEOUT_S", 0.05)
    server(monkeypatch, *[busy(0.001)] * 100_000)
    with pytest.raises(SelfCheckError, match=r"speech_zh\.flac: no capacity"):
        hear(SPEECH[0], "ws://x", None, None, recorded([]))


def test_a_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    server(monkeypatch, busy(7.0))
    assert hear(SPEECH[0], "ws://x", None, None, lambda _seconds: True) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [(TimeoutError(), "no result within 120 s"), (asr_client.SessionError("why"), "why")],
)
def test_another_failure_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server(monkeypatch, error)
    with pytest.raises(SelfCheckError, match=f"self-check: .*{said}"):
        hear(SPEECH[0], "ws://x", None, None, never)
