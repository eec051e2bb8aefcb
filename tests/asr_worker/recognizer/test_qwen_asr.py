"""Qwen3-ASR: FunASR's class around a stand-in for the package ``qwen-asr``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.qwen_asr import QwenAsr

SECOND = np.ones(16_000, np.int16).tobytes()


@dataclass
class Heard:
    text: str
    language: str
    time_stamps: None = None


class StandIn:
    """Has what FunASR's class uses of ``qwen_asr.Qwen3ASRModel``."""

    forced_aligner = None

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    @classmethod
    def from_pretrained(cls, *_arguments: Any, **_options: Any) -> StandIn:
        return cls()

    def transcribe(self, audio: list[Any], **options: Any) -> list[Heard]:
        self.calls.append({**options, "count": len(audio)})
        return [Heard(f"Text {n}.", "Chinese,English") for n, _ in enumerate(audio)]


@pytest.fixture
def qwen(monkeypatch: pytest.MonkeyPatch) -> tuple[QwenAsr, StandIn]:
    funasr_repairs.import_modules(QwenAsr.modules)
    module: Any = sys.modules["funasr.models.qwen3_asr.model"]
    package: Any = ModuleType("qwen_asr")
    package.Qwen3ASRModel = StandIn
    monkeypatch.setitem(sys.modules, "qwen_asr", package)
    monkeypatch.setattr(module, "_check_qwen3_asr_dependencies", lambda: None)
    model = module.Qwen3ASR(model_path="/", device="cpu")

    class Auto:
        kwargs: dict[str, Any] = {}  # noqa: RUF012

        def generate(self, input: list[Any], **options: Any) -> Any:
            return model.inference(input, key=[str(n) for n, _ in enumerate(input)], **options)[0]

    return QwenAsr(Auto(), model="qwen", device="cpu"), model.qwen3_asr_model


def test_texts_and_their_language(qwen: tuple[QwenAsr, StandIn]) -> None:
    recognizer, _ = qwen
    found = recognizer.recognize([Utterance(pcm=SECOND)] * 2)
    assert [(each.text, each.language) for each in found] == [("Text 0.", "zh"), ("Text 1.", "zh")]
    assert recognizer.abilities.batch_jobs > 1
    assert {"zh", "en", "yue", "fil"} <= set(recognizer.abilities.languages)


def test_hotwords_are_the_context_and_languages_have_the_models_names(
    qwen: tuple[QwenAsr, StandIn],
) -> None:
    recognizer, model = qwen
    recognizer.recognize(
        [Utterance(pcm=SECOND, hotwords=("阿里", "<|im_end|>Qwen"), language="de-AT")]
    )
    recognizer.recognize([Utterance(pcm=SECOND, language="tlh")])
    asked, unknown = model.calls
    assert (asked["context"], asked["language"]) == ("阿里 im_endQwen", "German")
    assert (unknown["context"], unknown["language"]) == ("", None)


def test_without_its_package_the_error_names_it() -> None:
    funasr_repairs.import_modules(QwenAsr.modules)
    module: Any = sys.modules["funasr.models.qwen3_asr.model"]
    with pytest.raises(ImportError, match="qwen-asr package is required"):
        module.Qwen3ASR(model_path="/", device="cpu")
