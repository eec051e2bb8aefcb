"""The FunASR recogniser with a real (untrained) Paraformer."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from asr_worker import funasr_loading, funasr_recognizer
from asr_worker.funasr_recognizer import (
    BATCH_FAILURES_MAX,
    UTTERANCE_MS_MIN,
    FunasrRecognizer,
    _text_and_words,
    _tokens,
)
from asr_worker.recognizer import RECOGNITION_FAILED, ModelLoadError, Utterance, build
from asr_worker.settings import WorkerSettings, model_source
from tests.asr_worker import tiny_punctuation, tiny_sense_voice
from tools.lab.digit_speech import VOICES, random_digits, speak
from wire.messages import Token
from wire.validation import TEXT_CHARS_MAX

Samples = npt.NDArray[np.int16]
BATCH = 25


def load(directory: Path, punctuation: str = "") -> FunasrRecognizer:
    values = WorkerSettings(asr_model=str(directory), asr_punc_model=punctuation)
    return funasr_recognizer.load(values, model_source(values.asr_model))


def load_plain(directory: Path, **more: Any) -> Any:
    return funasr_loading.auto_model(
        directory,
        model=str(directory),
        device="cpu",
        ncpu=1,
        disable_update=True,
        disable_pbar=True,
        **more,
    )


@pytest.fixture(scope="module")
def recognizer(tiny_model_dir: Path) -> FunasrRecognizer:
    return load(tiny_model_dir)


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path) -> Any:
    """FunASR as it is, for texts of single utterances."""
    return load_plain(tiny_model_dir)


def spoken(seed: int, samples: int | None = None) -> Samples:
    rng = random.Random(seed)
    return speak(random_digits(rng, rng.randint(2, 14)), rng.choice(VOICES), rng)[:samples]


def silence(samples: int = 16_000) -> Samples:
    return np.zeros(samples, np.int16)


def texts(recognizer: FunasrRecognizer, audio: list[Samples]) -> list[str | None]:
    utterances = [Utterance(pcm=samples.tobytes()) for samples in audio]
    return [recognition.text for recognition in recognizer.recognize(utterances)]


def own_text(plain: Any, samples: Samples, **options: Any) -> str:
    """FunASR's text of one utterance alone; nothing of ours is involved."""
    text: str = plain.generate(input=[samples.astype(np.float32) / 32768], **options)[0]["text"]
    return text


def test_batches_equal_funasr_one_by_one_on_500_utterances(
    recognizer: FunasrRecognizer, plain: Any
) -> None:
    rng = random.Random(500)
    audio = [spoken(seed, rng.randint(4_800, 128_000)) for seed in range(500)]
    batched = []
    for start in range(0, len(audio), BATCH):
        batched += texts(recognizer, audio[start : start + BATCH])
    different = [
        index for index, samples in enumerate(audio) if batched[index] != own_text(plain, samples)
    ]
    assert different == []
    assert recognizer.can_batch


def test_without_repair_batches_differ(tiny_model_dir: Path, plain: Any) -> None:
    """Shows that the comparison above can fail, and when the repair is no longer needed."""
    unrepaired = FunasrRecognizer(
        load_plain(tiny_model_dir), None, model="unrepaired", device="cpu"
    )
    rng = random.Random(500)
    audio = [spoken(seed, rng.randint(4_800, 128_000)) for seed in range(BATCH)]
    alone = [own_text(plain, samples) for samples in audio]
    assert texts(unrepaired, audio) != alone


@pytest.fixture(scope="module")
def quiet_recognizer(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that finds no token in silence, as trained ones do."""
    import torch

    directory = tmp_path_factory.mktemp("models") / "quiet"
    directory.mkdir()
    for path in tiny_model_dir.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    weights = torch.load(directory / "model.pt")
    weights["predictor.cif_output.weight"].zero_()
    weights["predictor.cif_output.bias"].fill_(-3.2)  # 0.04 tokens per frame of 60 ms
    torch.save(weights, directory / "model.pt")
    return load(directory)


def test_an_utterance_without_tokens_leaves_its_batch_alone(
    quiet_recognizer: FunasrRecognizer,
) -> None:
    long, short = np.tile(spoken(7), 2)[:128_000], spoken(2, 8_000)
    (alone,) = texts(quiet_recognizer, [long])
    assert alone
    assert texts(quiet_recognizer, [short]) == [""]
    assert texts(quiet_recognizer, [short, long, short]) == ["", alone, ""]
    assert texts(quiet_recognizer, [short, short]) == ["", ""]
    assert quiet_recognizer.can_batch


def test_sense_voice_batches_equal_funasr_one_by_one(tmp_path: Path) -> None:
    directory = tiny_sense_voice.build(tmp_path / "sense_voice")
    sense_voice, plain = load(directory), load_plain(directory)
    rng = random.Random(50)
    audio = [spoken(seed, rng.randint(4_800, 96_000)) for seed in range(BATCH)]
    utterances = [Utterance(pcm=samples.tobytes(), language="zh") for samples in audio]
    for samples, recognition in zip(audio, sense_voice.recognize(utterances), strict=True):
        tagged = own_text(plain, samples, language="zh", use_itn=True)
        assert recognition.text
        assert recognition.text == _text_and_words({"text": tagged})[0].strip()
    assert sense_voice.can_batch


def test_punctuation_equals_funasrs_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    punctuation = str(tiny_punctuation.build(tmp_path / "punctuation"))
    ours = load(tiny_model_dir, punctuation)
    funasrs = load_plain(tiny_model_dir, punc_model=punctuation)
    audio = [spoken(seed, 64_000) for seed in range(8)]
    expected = [own_text(funasrs, samples).strip() for samples in audio]
    assert any("?" in text or "." in text for text in expected)
    assert texts(ours, audio) == expected


def test_order_is_kept_whatever_the_lengths(recognizer: FunasrRecognizer) -> None:
    audio = [spoken(seed, samples) for seed, samples in enumerate((90_000, 5_000, 40_000, 6_000))]
    together = texts(recognizer, audio)
    assert together == [texts(recognizer, [samples])[0] for samples in audio]
    assert texts(recognizer, audio[::-1]) == together[::-1]


def test_audio_below_one_frame_is_not_given_to_the_model(recognizer: FunasrRecognizer) -> None:
    shortest = UTTERANCE_MS_MIN * 16
    audio = [np.ones(samples, np.int16) for samples in (0, 1, 399, shortest - 1, shortest)]
    found = texts(recognizer, audio)
    assert found[:4] == ["", "", "", ""]
    assert found[4] is not None
    assert texts(recognizer, []) == []


def test_loudest_and_odd_audio(recognizer: FunasrRecognizer) -> None:
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
    return auto, FunasrRecognizer(auto, None, model="misbehaving", device="cpu")


def refuse_poison(batch: list[Any]) -> None:
    if any(samples[0] > 0.9 for samples in batch):
        raise RuntimeError("poison")


def test_a_poisoned_utterance_fails_alone(plain: Any) -> None:
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
            assert recognition.text == own_text(plain, audio[index])
    assert recognizer.can_batch
    assert auto.sizes.count(1) < 8, "the others were not all run one by one"


def refuse_batches(batch: list[Any]) -> None:
    if len(batch) > 1:
        raise NotImplementedError("batch decoding is not implemented")


def test_a_model_that_says_it_cannot_batch_is_remembered(plain: Any) -> None:
    auto, recognizer = misbehaving(plain, refuse_batches)
    audio = [spoken(seed, 8_000) for seed in range(4)]
    alone = [own_text(plain, samples) for samples in audio]
    assert texts(recognizer, audio) == alone
    assert not recognizer.can_batch
    auto.sizes.clear()
    assert texts(recognizer, audio) == alone
    assert auto.sizes == [1, 1, 1, 1]


def crash_on_batches(batch: list[Any]) -> None:
    if len(batch) > 1:
        raise ValueError("only one, please")


def test_a_model_that_always_fails_on_batches_is_remembered_after_a_while(plain: Any) -> None:
    _, recognizer = misbehaving(plain, crash_on_batches)
    audio = [spoken(seed, 8_000) for seed in range(2)]
    for _ in range(BATCH_FAILURES_MAX):
        assert recognizer.can_batch
        assert all(texts(recognizer, audio))
    assert not recognizer.can_batch


def test_a_wrong_number_of_results_is_remembered(plain: Any) -> None:
    class Miscounting(Misbehaving):
        def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
            return super().generate(input, **options)[:1]

    recognizer = FunasrRecognizer(
        Miscounting(plain, lambda _: None), None, model="miscounting", device="cpu"
    )
    audio = [spoken(seed, 8_000) for seed in range(3)]
    assert texts(recognizer, audio) == [own_text(plain, samples) for samples in audio]
    assert not recognizer.can_batch


# ------------------------------------------------------------------ options, texts, times


class Recording:
    """Takes the place of a model of class ``kind`` and keeps the options of each call."""

    def __init__(self, kind: str, result: dict[str, Any]) -> None:
        self.model = type(kind, (), {})()
        self.kwargs: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self._result = result

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
        self.calls.append({**options, "count": len(input)})
        return [self._result] * len(input)


def calls_for(kind: str, *utterances: Utterance) -> list[dict[str, Any]]:
    auto = Recording(kind, {"text": "x"})
    FunasrRecognizer(auto, None, model=kind, device="cpu").recognize(utterances)
    return auto.calls


SECOND = b"\0\0" * 16_000


def test_other_languages_and_hotwords_are_other_calls() -> None:
    calls = calls_for(
        "SeacoParaformer",
        Utterance(pcm=SECOND, language="zh"),
        Utterance(pcm=SECOND, language="zh"),
        Utterance(pcm=SECOND, language="en"),
        Utterance(pcm=SECOND, language="zh", hotwords=("a", "b")),
        Utterance(pcm=SECOND),
    )
    assert [call["count"] for call in calls] == [2, 1, 1, 1]
    assert [call.get("language") for call in calls] == ["zh", "en", "zh", None]
    assert [call.get("hotword") for call in calls] == [None, None, " a b", None]


def test_a_model_that_takes_neither_shares_one_call() -> None:
    (call,) = calls_for(
        "Paraformer",
        Utterance(pcm=SECOND, language="zh"),
        Utterance(pcm=SECOND, hotwords=("a",)),
    )
    assert call["count"] == call["batch_size"] == 2
    assert "language" not in call
    assert "hotword" not in call


@pytest.mark.parametrize("word", ["http://127.0.0.1/x.txt", "/etc/hosts.txt", "x.txt"])
def test_a_hotword_is_never_a_place_to_read_from(word: str) -> None:
    (call,) = calls_for("SeacoParaformer", Utterance(pcm=SECOND, hotwords=(word,)))
    hotword = call["hotword"]
    assert not hotword.startswith("http")
    assert not Path(hotword).exists()


def test_sense_voice_tags_become_text() -> None:
    raw = "<|zh|><|NEUTRAL|><|Speech|><|withitn|>今天3点。"
    assert _text_and_words({"text": raw}) == ("今天3点。", [])


@pytest.mark.parametrize(
    ("raw", "text"),
    [("二 五 一", "二五一"), ("nine two", "nine two"), ("九 三 nine two", "九三nine two")],
)
def test_text_with_times_is_spaced_like_text_without(raw: str, text: str) -> None:
    assert _text_and_words({"text": raw, "timestamp": []}) == (text, raw.split())


def test_times_are_clipped_to_the_audio() -> None:
    tokens = _tokens(["a", "b"], [[-90, 100], [100, 1_050]], duration_ms=1_000)
    assert tokens == (
        Token(text="a", start_ms=0, end_ms=100),
        Token(text="b", start_ms=100, end_ms=1_000),
    )


@pytest.mark.parametrize("times", [None, [], [[0, 1]], "x"])
def test_times_that_belong_to_other_words_are_left_out(times: Any) -> None:
    assert _tokens(["a", "b"], times, duration_ms=1_000) == ()


def test_funasrs_own_times_belong_to_its_words(plain: Any) -> None:
    samples = spoken(3).astype(np.float32) / 32768
    (result,) = plain.generate(input=[samples], output_timestamp=True)
    text, words = _text_and_words(result)
    tokens = _tokens(words, result["timestamp"], duration_ms=len(samples) // 16)
    assert text == own_text(plain, spoken(3))
    assert [token.text for token in tokens] == words
    assert all(a.start_ms <= a.end_ms <= b.end_ms for a, b in pairwise(tokens))


def test_punctuation_is_added_to_each_text_and_not_to_an_empty_one() -> None:
    punctuator = Recording("CTTransformer", {"text": "x。"})
    auto = Recording("Paraformer", {"text": "x"})
    recognizer = FunasrRecognizer(auto, punctuator, model="m", device="cpu")
    found = recognizer.recognize([Utterance(pcm=SECOND), Utterance(pcm=b"")])
    assert [recognition.text for recognition in found] == ["x。", ""]
    assert len(punctuator.calls) == 1


def test_a_text_that_no_message_can_carry_is_a_failure() -> None:
    auto = Recording("Paraformer", {"text": "x" * (TEXT_CHARS_MAX + 1)})
    recognizer = FunasrRecognizer(auto, None, model="m", device="cpu")
    (found,) = recognizer.recognize([Utterance(pcm=SECOND)])
    assert found.text is None
    assert found.failure is not None


def test_a_directory_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: NoSuchModel\n")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="can't be loaded") as caught:
        build(WorkerSettings(asr_model=str(tmp_path)))
    assert caught.value.final
    assert "\n" not in str(caught.value)
