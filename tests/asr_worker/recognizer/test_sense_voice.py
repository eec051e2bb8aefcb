from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.sense_voice import SenseVoice
from tests.asr_worker.recognizer import tiny_sense_voice
from tests.asr_worker.recognizer.comparison import BATCH, load, load_plain, plain_text, spoken
from tests.asr_worker.recognizer.test_funasr_recognizer import SECOND, Recording

UTTERANCES = 200
SENSE_VOICE = SenseVoice(Recording({}), model="m", device="cpu")


def text_of(raw: str) -> str:
    return SENSE_VOICE.text_and_words({"text": raw})[0]


def beside(raw: str) -> dict[str, Any]:
    return SENSE_VOICE.found_beside_the_text({"text": raw})


def test_batches_equal_funasr_one_by_one_on_200_utterances(tmp_path: Path) -> None:
    directory = tiny_sense_voice.build(tmp_path / "sense_voice")
    sense_voice, plain = load(directory), load_plain(directory)
    rng = random.Random(50)
    audio = [spoken(seed, rng.randint(4_800, 64_000)) for seed in range(UTTERANCES)]
    utterances = [Utterance(pcm=samples.tobytes(), language="zh") for samples in audio]
    batched = [
        recognition
        for start in range(0, UTTERANCES, BATCH)
        for recognition in sense_voice.recognize(utterances[start : start + BATCH])
    ]
    assert batched == [sense_voice.recognize([utterance])[0] for utterance in utterances]
    for samples, recognition in zip(audio, batched, strict=True):
        tagged = plain_text(plain, samples, language="zh", use_itn=True)
        assert recognition.text
        assert recognition.text == text_of(tagged).strip()
        words = "".join(token.text for token in recognition.tokens)
        # Untrained, the model finds words before the audio, and those have no times.
        assert words in ("", recognition.text.replace(" ", ""))
        assert all(a.end_ms <= b.start_ms for a, b in pairwise(recognition.tokens))
    assert sum(bool(recognition.tokens) for recognition in batched) > UTTERANCES // 2
    assert sense_voice.abilities.batch_jobs > 1


@pytest.mark.parametrize(
    ("utterance", "language", "use_itn"),
    [
        (Utterance(pcm=SECOND), None, True),
        (Utterance(pcm=SECOND, language="ja-JP", itn=True), "ja", True),
        (Utterance(pcm=SECOND, language="fr", itn=False), None, False),
    ],
)
def test_language_and_written_form_are_arguments(
    utterance: Utterance, language: str | None, use_itn: bool
) -> None:
    auto = Recording({"text": "x"})
    SenseVoice(auto, model="m", device="cpu").recognize([utterance])
    (call,) = auto.calls
    assert (call.get("language"), call["use_itn"]) == (language, use_itn)
    assert call["output_timestamp"]


def test_tags_are_removed_from_the_text() -> None:
    assert text_of("<|zh|><|NEUTRAL|><|Speech|><|withitn|>今天3点。") == "今天3点。"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            "<|yue|><|HAPPY|><|Speech|><|withitn|>早晨。",
            {"language": "yue", "emotion": "happy", "events": ()},
        ),
        (
            "<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|withitn|>",
            {"language": "", "emotion": "", "events": ()},
        ),
        (
            "<|en|><|NEUTRAL|><|BGM|><|woitn|>la <|Laughter|>ha<|/Laughter|><|Laughter|>",
            {"language": "en", "emotion": "neutral", "events": ("bgm", "laughter")},
        ),
        ("", {"language": "", "emotion": "", "events": ()}),
    ],
)
def test_tags_become_language_emotion_and_events(raw: str, found: dict[str, Any]) -> None:
    assert beside(raw) == found
