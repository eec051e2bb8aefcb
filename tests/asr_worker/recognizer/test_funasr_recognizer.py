"""The FunASR recogniser with a real (untrained) Paraformer, and with models that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_worker.recognizer.funasr_loading import FAMILIES
from asr_worker.recognizer.funasr_recognizer import (
    BATCH_FAILURES_MAX,
    UTTERANCE_MS_MIN,
    FunasrRecognizer,
    _tokens,
    language_code,
)
from asr_worker.recognizer.protocol import RECOGNITION_FAILED, Recognizer, Utterance
from tests.asr_worker.recognizer.comparison import plain_text, spoken, texts
from wire.messages import Token
from wire.validation import TEXT_CHARS_MAX


def test_results_are_in_the_order_of_the_utterances(recognizer: Recognizer) -> None:
    audio = [spoken(seed, samples) for seed, samples in enumerate((90_000, 5_000, 40_000, 6_000))]
    together = texts(recognizer, audio)
    assert together == [texts(recognizer, [samples])[0] for samples in audio]
    assert texts(recognizer, audio[::-1]) == together[::-1]


def test_audio_shorter_than_one_frame_has_an_empty_text(recognizer: Recognizer) -> None:
    shortest = UTTERANCE_MS_MIN * 16
    audio = [np.ones(samples, np.int16) for samples in (0, 1, 399, shortest - 1, shortest)]
    found = texts(recognizer, audio)
    assert found[:4] == ["", "", "", ""]
    assert found[4] is not None
    assert texts(recognizer, []) == []


def test_full_scale_audio_and_an_odd_byte_count(recognizer: Recognizer) -> None:
    loudest = np.tile(np.array([32_767, -32_768], np.int16), 8_000)
    odd = Utterance(pcm=loudest.tobytes() + b"\1")
    even, cut = recognizer.recognize([Utterance(pcm=loudest.tobytes()), odd])
    assert even.text is not None
    assert even == cut


# ------------------------------------------------------------------ models that misbehave


class Misbehaving:
    """A real AutoModel whose ``generate`` calls go through ``fault`` first."""

    def __init__(self, auto: Any, fault: Callable[[list[Any]], None]) -> None:
        self.model = auto.model
        self.kwargs = auto.kwargs
        self.sizes: list[int] = []
        self._auto = auto
        self._fault = fault

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
        self.sizes.append(len(input))
        self._fault(input)
        found: list[dict[str, Any]] = self._auto.generate(input=input, **options)
        return found


def misbehaving(plain: Any, fault: Callable[[list[Any]], None]) -> tuple[Any, FunasrRecognizer]:
    auto = Misbehaving(plain, fault)
    return auto, FunasrRecognizer(auto, model="misbehaving", device="cpu")


def refuse_poison(batch: list[Any]) -> None:
    if any(samples[0] > 0.9 for samples in batch):
        raise RuntimeError("poison")


def test_only_the_utterance_at_fault_fails(plain: Any) -> None:
    auto, recognizer = misbehaving(plain, refuse_poison)
    audio = [spoken(seed, 8_000) for seed in range(8)]
    audio[5][0] = 32_000
    utterances = [Utterance(pcm=samples.tobytes()) for samples in audio]
    found = recognizer.recognize(utterances)
    for index, recognition in enumerate(found):
        if index == 5:
            assert recognition.text is None
            assert recognition.failure is not None
            assert recognition.failure.code == RECOGNITION_FAILED
            assert "poison" not in recognition.failure.message
        else:
            assert recognition.text == plain_text(plain, audio[index])
    assert recognizer.abilities.batch_jobs > 1
    assert auto.sizes.count(1) < 8, "the others were not all run one by one"


def refuse_batches(batch: list[Any]) -> None:
    if len(batch) > 1:
        raise NotImplementedError("batch decoding is not implemented")


def test_not_implemented_ends_batching_at_once(plain: Any) -> None:
    auto, recognizer = misbehaving(plain, refuse_batches)
    audio = [spoken(seed, 8_000) for seed in range(4)]
    alone = [plain_text(plain, samples) for samples in audio]
    assert texts(recognizer, audio) == alone
    assert recognizer.abilities.batch_jobs == 1
    auto.sizes.clear()
    assert texts(recognizer, audio) == alone
    assert auto.sizes == [1, 1, 1, 1]


def crash_on_batches(batch: list[Any]) -> None:
    if len(batch) > 1:
        raise ValueError("only one, please")


def test_repeated_failures_of_batches_end_batching(plain: Any) -> None:
    _, recognizer = misbehaving(plain, crash_on_batches)
    audio = [spoken(seed, 8_000) for seed in range(2)]
    for _ in range(BATCH_FAILURES_MAX):
        assert recognizer.abilities.batch_jobs > 1
        assert all(texts(recognizer, audio))
    assert recognizer.abilities.batch_jobs == 1


def test_a_wrong_number_of_results_ends_batching(plain: Any) -> None:
    class Miscounting(Misbehaving):
        def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
            return super().generate(input, **options)[:1]

    recognizer = FunasrRecognizer(
        Miscounting(plain, lambda _: None), model="miscounting", device="cpu"
    )
    audio = [spoken(seed, 8_000) for seed in range(3)]
    assert texts(recognizer, audio) == [plain_text(plain, samples) for samples in audio]
    assert recognizer.abilities.batch_jobs == 1


# ------------------------------------------------------------------ options, texts, times


class Recording:
    """A stand-in for AutoModel that records the options of each call."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.calls: list[dict[str, Any]] = []
        self.kwargs: dict[str, Any] = {}
        self._result = result

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
        self.calls.append({**options, "count": len(input)})
        return [self._result] * len(input)


def calls_for(model_class: str, *utterances: Utterance) -> list[dict[str, Any]]:
    auto = Recording({"text": "x"})
    FAMILIES[model_class](auto, model="m", device="cpu").recognize(utterances)
    return auto.calls


def text_and_words(result: dict[str, Any]) -> tuple[str, list[str]]:
    return FunasrRecognizer(None, model="m", device="cpu").text_and_words(result)[:2]


SECOND = b"\0\0" * 16_000


def test_different_hotwords_are_separate_calls() -> None:
    calls = calls_for(
        "SeacoParaformer",
        Utterance(pcm=SECOND),
        Utterance(pcm=SECOND, language="zh"),
        Utterance(pcm=SECOND, hotwords=("a", "b")),
        Utterance(pcm=SECOND),
    )
    assert [call["count"] for call in calls] == [3, 1]
    assert [call.get("hotword") for call in calls] == [None, " a b "]


def test_a_model_that_takes_neither_gets_one_call() -> None:
    (call,) = calls_for(
        "Paraformer",
        Utterance(pcm=SECOND, language="zh"),
        Utterance(pcm=SECOND, hotwords=("a",)),
    )
    assert call["count"] == call["batch_size"] == 2
    assert "language" not in call
    assert "hotword" not in call


@pytest.mark.parametrize("word", ["http://127.0.0.1/x.txt", "/etc/hosts.txt", "x.txt"])
def test_a_hotword_is_never_an_address_or_a_path(word: str) -> None:
    (call,) = calls_for("SeacoParaformer", Utterance(pcm=SECOND, hotwords=(word,)))
    hotword = call["hotword"]
    assert not hotword.startswith("http")
    assert not Path(hotword).exists()


@pytest.mark.parametrize(
    ("raw", "text"),
    [("二 五 一", "二五一"), ("nine two", "nine two"), ("九 三 nine two", "九三nine two")],
)
def test_text_with_times_is_spaced_like_text_without_times(raw: str, text: str) -> None:
    assert text_and_words({"text": raw, "timestamp": []}) == (text, raw.split())


def test_times_are_clipped_to_the_audio() -> None:
    tokens = _tokens(["a", "b"], [[-90, 100], [100, 1_050]], duration_ms=1_000)
    assert tokens == (
        Token(text="a", start_ms=0, end_ms=100),
        Token(text="b", start_ms=100, end_ms=1_000),
    )


@pytest.mark.parametrize("times", [None, [], [[0, 1]], "x"])
def test_times_that_do_not_match_the_words_are_dropped(times: Any) -> None:
    assert _tokens(["a", "b"], times, duration_ms=1_000) == ()


def test_funasrs_times_match_its_words(plain: Any) -> None:
    samples = spoken(3).astype(np.float32) / 32768
    (result,) = plain.generate(input=[samples], output_timestamp=True)
    text, words = text_and_words(result)
    tokens = _tokens(words, result["timestamp"], duration_ms=len(samples) // 16)
    assert text == plain_text(plain, spoken(3))
    assert [token.text for token in tokens] == words
    assert all(a.start_ms <= a.end_ms <= b.end_ms for a, b in pairwise(tokens))


def test_a_text_longer_than_a_message_allows_is_a_failure() -> None:
    auto = Recording({"text": "x" * (TEXT_CHARS_MAX + 1)})
    recognizer = FunasrRecognizer(auto, model="m", device="cpu")
    (found,) = recognizer.recognize([Utterance(pcm=SECOND)])
    assert found.text is None
    assert found.failure is not None


# ------------------------------------------------------------------ what a model can do


class Sized:
    """A stand-in for a model without a family: ``texts`` has its answer to each size of batch."""

    def __init__(self, *answers: Any) -> None:
        self.kwargs: dict[str, Any] = {}
        self._answers = answers

    def generate(self, input: list[Any], **_options: Any) -> Any:
        answer = self._answers[len(input) - 1]
        if isinstance(answer, Exception):
            raise answer
        return [{"text": text} if isinstance(text, str) else text for text in answer]


def warmed_up(*answers: Any) -> FunasrRecognizer:
    recognizer = FunasrRecognizer(Sized(*answers), model="sized", device="cpu")
    recognizer.warm_up()
    return recognizer


@pytest.mark.parametrize("answer", [["x"], ["x", "y"], ValueError("batch_size must be 1")])
def test_a_model_that_cannot_batch_is_found_out_before_its_first_job(answer: Any) -> None:
    assert warmed_up(["x"], answer).abilities.batch_jobs == 1


@pytest.mark.parametrize("answers", [(["x"], ["x", "x"]), ([""], [""]), ([], [])])
def test_a_model_that_hears_nothing_in_noise_may_batch(answers: Any) -> None:
    assert warmed_up(*answers).abilities.batch_jobs > 1


@pytest.mark.parametrize("answers", [(ValueError("no encoder"),), ([{"spk_embedding": 1}],)])
def test_a_model_that_returns_no_text_fails_its_warm_up(answers: Any) -> None:
    with pytest.raises(ValueError, match=r"no (encoder|text)"):
        warmed_up(*answers)


def test_no_result_for_an_utterance_is_an_empty_text() -> None:
    recognizer = FunasrRecognizer(Sized([], []), model="silent", device="cpu")
    found = recognizer.recognize([Utterance(pcm=SECOND)] * 2)
    assert [recognition.text for recognition in found] == ["", ""]


@pytest.mark.parametrize(
    ("tokens", "languages"),
    [
        (["<blank>", "你", "hel@@", "lo"], ("zh", "en")),
        (["<blank>", "你"], ("zh",)),
        (["<blank>", "hel", "lo"], ()),
        (None, ()),
    ],
)
def test_languages_follow_from_the_tokens(tokens: Any, languages: tuple[str, ...]) -> None:
    class Tokenizer:
        token_list = tokens

    auto = Recording({"text": "x"})
    auto.kwargs["tokenizer"] = Tokenizer()
    assert FunasrRecognizer(auto, model="m", device="cpu").abilities.languages == languages


@pytest.mark.parametrize(
    ("asked", "code"),
    [("zh", "zh"), ("zh-CN", "zh"), (" EN_us", "en"), ("auto", ""), ("", "")],
)
def test_a_language_is_its_first_part(asked: str, code: str) -> None:
    assert language_code(asked) == code
