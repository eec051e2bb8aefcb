from __future__ import annotations

import pytest

from asr_worker.recognizer.protocol import ModelLoadError, Recognition, Utterance


def test_hints_and_tokens_are_optional() -> None:
    utterance, recognition = Utterance(pcm=b""), Recognition(text="")
    assert (utterance.language, utterance.hotwords) == ("", ())
    assert (recognition.failure, recognition.tokens) == (None, ())


@pytest.mark.parametrize("final", [True, False])
def test_a_load_error_states_whether_a_retry_can_succeed(final: bool) -> None:
    error = ModelLoadError("no such model", final=final)
    assert str(error) == "no such model"
    assert error.final is final
