"""``python -m tools.lab.accuracy MODEL --audio DIR``: errors and speed of a model on recordings.

The folder has WAV files (16 kHz, mono, 16 bit) and ``refs.json``, which maps the name of each to
its language and words: ``{"jfk": {"lang": "en", "ref": "and so my fellow …"}}``; ``null`` for
noise, which must give no text. English is compared by words in Whisper's normalised form, other
languages by characters without punctuation. FunASR's own class, as it is, runs in the same process.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from asr_worker.recognizer.protocol import Utterance
from asr_worker.settings import WorkerSettings, model_source
from tools.training.demo_model.evaluation import edit_distance
from wire.messages import SAMPLE_RATE_HZ, pcm_duration_ms

BATCHES = (1, 8)
Texts = Callable[[Sequence["Clip"]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    name: str
    language: str
    words: str | None
    """None: noise."""
    pcm: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    errors: dict[str, tuple[int, int]]
    """By language: errors, and words or characters."""
    inventions: dict[str, str]
    """Texts of noise."""
    audio_s: float
    processor_s: float


def read(folder: Path) -> list[Clip]:
    """Return the folder's recordings, shortest first, so that those of a batch are alike."""
    clips = []
    for name, known in json.loads((folder / "refs.json").read_text("utf-8")).items():
        with wave.open(str(folder / f"{name}.wav")) as file:
            assert file.getframerate() == SAMPLE_RATE_HZ and file.getnchannels() == 1, name
            pcm = file.readframes(file.getnframes())
        clips.append(Clip(name=name, language=known["lang"], words=known["ref"], pcm=pcm))
    return sorted(clips, key=lambda clip: len(clip.pcm))


def units(language: str, text: str) -> list[str]:
    """The words or characters that are compared."""
    if language == "en":
        words: list[str] = _english()(text).split()
        return words
    return list(re.sub(r"[\W_]", "", text))


@cache
def _english() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Whisper leaves a file open.
        from whisper.normalizers import EnglishTextNormalizer

        return EnglishTextNormalizer()


def measure(clips: Sequence[Clip], texts: Texts, batch: int) -> Measurement:
    errors: dict[str, tuple[int, int]] = {}
    inventions = {}
    processor_s = 0.0
    for begin in range(0, len(clips), batch):
        part = clips[begin : begin + batch]
        began_s = time.process_time()
        found = texts(part)
        processor_s += time.process_time() - began_s
        for clip, text in zip(part, found, strict=True):
            if clip.words is None:
                if text:
                    inventions[clip.name] = text
                continue
            said = units(clip.language, clip.words)
            wrong, total = errors.get(clip.language, (0, 0))
            wrong += edit_distance(said, units(clip.language, text))
            errors[clip.language] = (wrong, total + len(said))
    audio_s = sum(pcm_duration_ms(clip.pcm) for clip in clips) / 1000
    return Measurement(
        errors=errors, inventions=inventions, audio_s=audio_s, processor_s=processor_s
    )


def recognizer_texts(recognizer: Any) -> Texts:
    def texts(clips: Sequence[Clip]) -> list[str]:
        found = recognizer.recognize([Utterance(pcm=clip.pcm) for clip in clips])
        return [recognition.text or "" for recognition in found]

    return texts


def funasr_texts(auto: Any, language: str | None) -> Texts:
    """FunASR as it is, one by one. Only Whisper's class reads the options, with ``language``, which
    its English models need."""
    options = {"DecodingOptions": {"fp16": False, "language": language}}

    def texts(clips: Sequence[Clip]) -> list[str]:
        found = []
        for clip in clips:
            samples = np.frombuffer(clip.pcm, "<i2").astype(np.float32) / np.float32(32768)
            found.append(
                str(auto.generate(input=[samples], disable_pbar=True, **options)[0]["text"])
            )
        return found

    return texts


def error_text(found: Measurement) -> str:
    return ", ".join(
        f"{language} {100 * wrong / total:.1f} % of {total}"
        for language, (wrong, total) in sorted(found.errors.items())
    )


def invention_text(found: Measurement) -> str:
    return "; ".join(f"{clip}: {text!r}" for clip, text in found.inventions.items()) or "none"


def row(name: str, found: Measurement) -> list[str]:
    speed = f"{found.audio_s / found.processor_s:.1f} ×"
    return [name, error_text(found), invention_text(found), speed]


def main(
    model: Annotated[str, typer.Argument(help="A model's name or directory, as in ASR_MODEL.")],
    audio: Annotated[Path, typer.Option("--audio", help="Folder of recordings with refs.json.")],
    languages: Annotated[
        str, typer.Option("--languages", help="Only these, such as en,zh; noise always.")
    ] = "",
    precision: Annotated[str, typer.Option("--precision", help="As in ASR_PRECISION.")] = "float32",
    reference: Annotated[bool, typer.Option(help="Measure FunASR's own class as well.")] = True,
) -> None:
    """Measure errors, texts of noise, and seconds of audio for a second of processor time."""
    # Imported late: tools.lab.product_accuracy does without FunASR.
    from asr_worker.recognizer import funasr_loading

    values = WorkerSettings.model_validate({"asr_model": model, "asr_precision": precision})
    wanted = set(filter(None, languages.split(",")))
    only = languages if len(wanted) == 1 else None
    clips = [c for c in read(audio) if c.words is None or not wanted or c.language in wanted]
    source = model_source(values.asr_model)
    recognizer = funasr_loading.load(values, source)
    table = Table("run", "errors", "texts of noise", "audio a processor second")
    ours = recognizer_texts(recognizer)
    measure(clips, ours, max(BATCHES))  # Whisper's states of silence are stored at first use.
    for batch in BATCHES:
        table.add_row(*row(f"in batches of {batch}", measure(clips, ours, batch)))
    if reference:
        cached = values.model_cache().find(source.location) if source.kind == "named" else None
        auto = funasr_loading.auto_model(
            cached or Path(source.location),
            device="cpu",
            ncpu=1,
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
        )
        table.add_row(*row("FunASR alone, float32", measure(clips, funasr_texts(auto, only), 1)))
    Console().print(table)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
