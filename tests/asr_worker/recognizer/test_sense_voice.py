from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.sense_voice import SenseVoice
from tests.asr_worker.recognizer import tiny_sense_voice
from tests.asr_worker.recognizer.comparison import BATCH, load, load_plain, plain_text, spoken

AUTO: Any = None
SENSE_VOICE = SenseVoice(AUTO, None, model="m", device="cpu")


def text_and_words(raw: str) -> tuple[str, list[str]]:
    return SENSE_VOICE.text_and_words({"text": raw})


def test_batches_equal_funasr_one_by_one(tmp_path: Path) -> None:
    directory = tiny_sense_voice.build(tmp_path / "sense_voice")
    sense_voice, plain = load(directory), load_plain(directory)
    assert isinstance(sense_voice, SenseVoice)
    rng = random.Random(50)
    audio = [spoken(seed, rng.randint(4_800, 96_000)) for seed in range(BATCH)]
    utterances = [Utterance(pcm=samples.tobytes(), language="zh") for samples in audio]
    for samples, recognition in zip(audio, sense_voice.recognize(utterances), strict=True):
        tagged = plain_text(plain, samples, language="zh", use_itn=True)
        assert recognition.text
        assert recognition.text == text_and_words(tagged)[0].strip()
    assert sense_voice.abilities.batch_jobs > 1


def test_tags_are_removed_from_the_text() -> None:
    raw = "<|zh|><|NEUTRAL|><|Speech|><|withitn|>今天3点。"
    assert text_and_words(raw) == ("今天3点。", [])


@pytest.mark.parametrize(
    ("raw", "language"),
    [
        ("<|yue|><|NEUTRAL|><|Speech|><|withitn|>早晨。", "yue"),
        ("<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|withitn|>", ""),
        ("", ""),
    ],
)
def test_the_language_is_that_of_the_first_tag(raw: str, language: str) -> None:
    assert SENSE_VOICE.detected_language({"text": raw}) == language
