from __future__ import annotations

import random
from pathlib import Path

import pytest

from asr_worker.recognizer import funasr_loading
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.written_form import WrittenForm
from asr_worker.settings import DEMO_MODEL_DIR, WorkerSettings, model_source
from tools.training import hotwords
from tools.training.hotwords import TEST_VOICES, Recording, errors, record

RECORDINGS, EPOCHS = 500, 40


def load(directory: Path) -> WrittenForm:
    location = str(directory)
    return funasr_loading.load(WorkerSettings(asr_model=location), model_source(location))


@pytest.fixture(scope="module")
def tested() -> list[Recording]:
    return record(TEST_VOICES, 60, random.Random(2))


def texts(model: WrittenForm, tested: list[Recording], *, said: bool) -> list[str | None]:
    utterances = [
        Utterance(pcm=each.samples.tobytes(), hotwords=each.words if said else ())
        for each in tested
    ]
    return [found.text for found in model.recognize(utterances)]


def test_an_untrained_model_hears_what_the_bundled_one_hears(
    tmp_path: Path, tested: list[Recording]
) -> None:
    hotwords.build(tmp_path)
    untrained = load(tmp_path)
    expected = texts(load(DEMO_MODEL_DIR), tested, said=False)
    assert texts(untrained, tested, said=False) == expected
    assert texts(untrained, tested, said=True) == expected


def test_hotwords_lower_the_errors(tmp_path: Path, tested: list[Recording]) -> None:
    hotwords.make(tmp_path, RECORDINGS, EPOCHS)
    model = load(tmp_path)

    def wrong(*, said: bool) -> int:
        found = texts(model, tested, said=said)
        return sum(errors(one, text or "") for one, text in zip(tested, found, strict=True))

    assert wrong(said=True) < 0.9 * wrong(said=False)


def test_words_of_a_recording() -> None:
    one = Recording("en_slt", "4744", record(TEST_VOICES, 1, random.Random(1))[0].samples)
    assert one.words == ("four", "seven")
    assert len(one.other_words) == 2 and not set(one.other_words) & set(one.words)
    assert errors(one, "four seven four five") == 1
