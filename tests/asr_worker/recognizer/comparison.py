"""Our recognisers beside FunASR as it is, on the same speech."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from asr_worker.recognizer import funasr_loading, funasr_repairs
from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer
from asr_worker.recognizer.protocol import Recognizer, Utterance
from asr_worker.recognizer.written_form import WrittenForm
from asr_worker.settings import WorkerSettings, model_source
from tools.lab.digit_speech import VOICES, random_digits, speak

Samples = npt.NDArray[np.int16]
BATCH = 25


def load(directory: Path, punctuation: str = "") -> WrittenForm:
    values = WorkerSettings(asr_model=str(directory), asr_punc_model=punctuation)
    return funasr_loading.load(values, model_source(values.asr_model))


def network_of(recognizer: WrittenForm) -> Any:
    """FunASR's model."""
    return cast(FunasrRecognizer, recognizer._recognizer)._auto.model


def load_plain(directory: Path, **more: Any) -> Any:
    """A ``funasr.AutoModel`` without repairs."""
    return funasr_loading.auto_model(
        directory,
        device="cpu",
        ncpu=1,
        disable_update=True,
        disable_pbar=True,
        **more,
    )


def spoken(seed: int, samples: int | None = None) -> Samples:
    rng = random.Random(seed)
    return speak(random_digits(rng, rng.randint(2, 14)), rng.choice(VOICES), rng)[:samples]


def texts(recognizer: Recognizer, audio: list[Samples]) -> list[str | None]:
    utterances = [Utterance(pcm=samples.tobytes()) for samples in audio]
    return [recognition.text for recognition in recognizer.recognize(utterances)]


def plain_text(plain: Any, samples: Samples, **options: Any) -> str:
    """FunASR's text of a single utterance, without any of our code."""
    text: str = plain.generate(input=[samples.astype(np.float32) / 32768], **options)[0]["text"]
    return text


def without_dither(plain: Any) -> None:
    """Remove the random noise of FunASR's default, so that texts can be compared."""
    funasr_repairs.restore_configuration(plain)
    plain.kwargs["frontend"].dither = 0.0
