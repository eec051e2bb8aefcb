from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whisper.decoding import DecodingResult

from asr_worker.recognizer import whisper, whisper_network
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.whisper import AUDIO_S_MAX, TEMPERATURES, Whisper
from tests.asr_worker.recognizer import tiny_whisper
from tests.asr_worker.recognizer.comparison import load, spoken
from wire.messages import Token

UTTERANCES = 200
BATCH = 20


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    loaded = load(tiny_whisper.build(tmp_path_factory.mktemp("whisper")))._recognizer
    assert isinstance(loaded, Whisper)
    return loaded


def utterance(seed: int, samples: int = 16_000, **hints: Any) -> Utterance:
    return Utterance(pcm=spoken(seed, samples).tobytes(), **hints)


def result(text: str, **estimates: Any) -> DecodingResult:
    values = {"avg_logprob": -0.2, "no_speech_prob": 0.1, "compression_ratio": 1.0, **estimates}
    values.setdefault("language", "en")
    return DecodingResult(audio_features=None, text=text, **values)


class Network:
    """Returns prepared results: the first try of each utterance, and its retries in order."""

    languages = ("en", "zh", "ja")
    multilingual = True

    def __init__(self, *tries: list[DecodingResult]) -> None:
        self._tries = tries
        self.asked: list[tuple[str | None, float]] = []

    def encode(self, batch: list[Any]) -> Network:
        self.batch = batch
        return self

    def only(self, indices: list[int]) -> Network:
        self.chosen = indices
        return self

    def decode(
        self, _encoded: Any, language: str | None, temperature: float = 0.0
    ) -> list[DecodingResult]:
        self.asked.append((language, temperature))
        if temperature:
            return [self._tries[self.chosen[0]][1 + TEMPERATURES.index(temperature)]]
        return [tries[0] for tries in self._tries[: len(self.batch)]]

    def words(self, _encoded: Any, results: list[DecodingResult]) -> list[list[Token]]:
        return [[Token(text=r.text, start_ms=10, end_ms=20)] for r in results]


def recognized(recognizer: Whisper, *tries: list[DecodingResult], **hints: Any) -> Any:
    """The recognitions of as many utterances as there are ``tries``, and the network."""
    network = Network(*tries)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(recognizer, "_network", network)
    try:
        found = recognizer.recognize([utterance(n, **hints) for n in range(len(tries))])
    finally:
        monkey.undo()
    return found, network


def test_batches_equal_one_by_one(recognizer: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    # An untrained model neither ends nor writes credible texts; other tests are about those.
    monkeypatch.setattr(whisper, "TEMPERATURES", ())
    monkeypatch.setattr(whisper_network, "TOKENS_MIN", 8)
    monkeypatch.setattr(whisper_network, "TOKENS_PER_S_MAX", 4)
    rng = random.Random(3)
    hints = ["", "zh", "de"]
    utterances = [
        utterance(seed, rng.randint(1_600, 20_000), language=rng.choice(hints))
        for seed in range(UTTERANCES)
    ]
    texts = set()
    for begin in range(0, UTTERANCES, BATCH):
        batch = utterances[begin : begin + BATCH]
        for one, together in zip(batch, recognizer.recognize(batch), strict=True):
            (alone,) = recognizer.recognize([one])
            assert together.text == alone.text
            assert together.tokens == alone.tokens
            assert together.language == alone.language
            assert together.confidence == pytest.approx(alone.confidence, rel=1e-3)
            texts.add(alone.text)
    assert len(texts) > 0.75 * UTTERANCES


def test_second_tries_do_not_depend_on_the_batch(recognizer: Whisper) -> None:
    utterances = [utterance(seed, 4_000 + 1_000 * seed, language="en") for seed in range(3)]
    for one, together in zip(utterances, recognizer.recognize(utterances), strict=True):
        (alone,) = recognizer.recognize([one])
        assert (together.text, together.tokens) == (alone.text, alone.tokens)


def test_abilities_are_those_of_the_network(recognizer: Whisper, tmp_path: Path) -> None:
    assert {"en", "zh", "ja"} <= set(recognizer.abilities.languages)
    assert len(recognizer.abilities.languages) == 99
    assert recognizer.abilities.takes_language and recognizer.abilities.detects_language
    english = load(tiny_whisper.build(tmp_path, tiny_whisper.ENGLISH)).abilities
    assert english.languages == ("en",)
    assert not english.takes_language and not english.detects_language
    for abilities in (english, recognizer.abilities):
        assert abilities.word_times and abilities.punctuation
        assert abilities.batch_jobs == whisper.DECODED_JOBS_MAX


def test_an_english_model_ignores_another_language(tmp_path: Path) -> None:
    english = load(tiny_whisper.build(tmp_path, tiny_whisper.ENGLISH))
    (found,) = english.recognize([utterance(1, language="zh")])
    assert found.failure is None
    assert found.language == "en"


@pytest.mark.parametrize(
    ("requested", "given"),
    [
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("cmn_Hans_CN", "zh"),
        ("EN-us", "en"),
        ("", None),
        ("auto", None),
        ("tlh", None),
        ("../../etc", None),
    ],
)
def test_languages_are_reduced_to_those_of_the_model(
    recognizer: Whisper, requested: str, given: str | None
) -> None:
    _, network = recognized(recognizer, [result("hello")], language=requested)
    assert network.asked == [(given, 0.0)]


def test_text_language_and_confidence_are_reported(recognizer: Whisper) -> None:
    (found,), _ = recognized(recognizer, [result("hello", avg_logprob=-0.5, language="ja")])
    assert (found.text, found.language) == ("hello", "ja")
    assert found.tokens == (Token(text="hello", start_ms=10, end_ms=20),)
    assert found.confidence == pytest.approx(0.6065, abs=1e-4)


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "text"),
    [
        (0.915, -0.46, ""),  # digital silence
        (0.788, -0.58, ""),  # a breath
        (0.657, -1.23, ""),  # a bird
        (0.742, -0.30, "you"),  # one second of Mandarin
        (0.693, -0.55, "you"),  # a digit
        (0.100, -0.99, "you"),
    ],
)
def test_inventions_in_noise_are_no_text(
    recognizer: Whisper, no_speech_prob: float, avg_logprob: float, text: str
) -> None:
    """Estimates measured with tiny.en and base."""
    tried = [result("you", no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)]
    (found,), network = recognized(recognizer, tried)
    assert found.text == text
    assert bool(found.tokens) == bool(text)
    assert len(network.asked) == 1


def test_a_text_that_is_not_credible_is_tried_again_a_bounded_number_of_times(
    recognizer: Whisper,
) -> None:
    repeated, doubtful = result("go go go", compression_ratio=3.0), result("um", avg_logprob=-1.5)
    good = result("good")
    found, network = recognized(
        recognizer,
        [repeated, doubtful, good],
        [good, doubtful, doubtful],
        [doubtful, good, doubtful],
        [repeated, repeated, doubtful],
    )
    assert [recognition.text for recognition in found] == ["good", "good", "good", "um"]
    low, high = TEMPERATURES
    assert [temperature for _, temperature in network.asked] == [0.0, low, high, low, low, high]


def test_a_partial_result_is_tried_once_and_has_no_times(recognizer: Whisper) -> None:
    (found,), network = recognized(recognizer, [result("um", avg_logprob=-2.0)], partial=True)
    assert (found.text, found.tokens) == ("um", ())
    assert len(network.asked) == 1


@pytest.mark.parametrize(
    ("language", "expected"),
    [("", "广州头发"), ("zh-CN", "广州头发"), ("zh-Hant", "廣州頭髮"), ("zh-TW", "廣州頭髮")],
)
@pytest.mark.parametrize("written", ["廣州頭髮", "广州头发"])
def test_chinese_has_one_script(
    recognizer: Whisper, written: str, language: str, expected: str
) -> None:
    (found,), _ = recognized(recognizer, [result(written, language="zh")], language=language)
    assert found.text == expected
    assert [token.text for token in found.tokens] == [expected]


def test_japanese_keeps_its_characters(recognizer: Whisper) -> None:
    (found,), _ = recognized(recognizer, [result("廣島", language="ja")])
    assert found.text == "廣島"


def test_a_long_utterance_is_cut_where_it_is_quietest(recognizer: Whisper) -> None:
    rate = 16_000
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 70 * rate).astype("<i2")
    quiet_s = (27, 52)
    for second in quiet_s:
        samples[second * rate : second * rate + rate // 2] //= 500
    network = Network([result("one")], [result("two")], [result("three")])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(recognizer, "_network", network)
    (found,) = recognizer.recognize([Utterance(pcm=samples.tobytes())])
    monkey.undo()
    lengths = [len(piece) for piece in network.batch]
    assert sum(lengths) == len(samples)
    assert max(lengths) <= AUDIO_S_MAX * rate
    cuts_s = [lengths[0] / rate, (lengths[0] + lengths[1]) / rate]
    for cut_s, second in zip(cuts_s, quiet_s, strict=True):
        assert second <= cut_s <= second + 0.5
    assert found.text == "one two three"
    offsets = [round(1_000 * cut_s) for cut_s in (0, *cuts_s)]
    assert [token.start_ms for token in found.tokens] == [10 + offset for offset in offsets]
