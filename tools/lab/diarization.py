"""``python -m tools.lab.diarization``: the diarization error of speakers that take turns.

The speaker model is a stand-in in FunASR's form, because no real one is in this repository:
statistics of cepstra and of the pitch, projected by a discriminant analysis of the bundled voices.
Voices of the test are kept out of it. Its directory is loaded as ``ASR_SPK_MODEL``, and its
embeddings are clustered by ``gateway.session.speakers``. Utterances are given, not detected: the
error is the share of speech with the wrong speaker or none, at once and at the end.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import wave
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from omegaconf import OmegaConf

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.funasr_loading import load_embedder
from asr_worker.recognizer.speaker_embedding import WINDOW_SAMPLES, SpeakerEmbedder
from asr_worker.settings import WorkerSettings
from gateway.session.speakers import Speakers
from tools.lab.digit_speech import VOICES, digit_clips
from wire.messages import SAMPLE_RATE_HZ, pcm_duration_ms

MODEL_CLASS = "SpeakerStatistics"
SPEEDS = (0.84, 0.92, 1.0, 1.08, 1.16)
"""A voice at another speed has another pitch and other formants: a further voice for training."""
UTTERANCES = 24
"""Utterances of each voice."""
DIGITS = (3, 7)
"""Fewest and most digits of an utterance."""
TURNS = 60
VALUES = 24
"""Values of an embedding."""
WITHIN_FLOOR = 0.1
"""Share of the mean variance within a voice that is added to each direction: there are few
voices."""
SIMILARITY_MIN = 0.6
"""Of the stand-in; its voices are less alike than those of a model of thousands of speakers."""
ERROR_MAX = 0.25
FRAME, STEP, FFT = 400, 160, 512
MELS, CEPSTRA = 40, 20
PITCH_LAGS = (40, 267)
"""400 to 60 Hz."""

Samples = npt.NDArray[Any]
Array = npt.NDArray[Any]
Voice = Sequence[Samples]
"""Short recordings."""


@dataclass(frozen=True, slots=True)
class Turn:
    speaker: str
    samples: Samples


# ------------------------------------------------------------------------------------------- model


def statistics(samples: Samples) -> Array:
    """Mean and deviation of cepstra and of the logarithm of the pitch, over frames of speech."""
    count = 1 + (len(samples) - FRAME) // STEP
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP][:count]
    energy = np.square(frames).mean(axis=1)
    frames = frames[energy > 0.05 * np.percentile(energy, 95)]
    spectra = np.abs(np.fft.rfft(frames * np.hamming(FRAME), FFT)) ** 2
    mels = np.log(spectra @ _mel_filters().T + 1e-8)
    cepstra = (mels @ _cosines().T)[:, 1:]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * FFT)) ** 2)[:, : PITCH_LAGS[1]]
    lags = correlation[:, PITCH_LAGS[0] :].argmax(axis=1) + PITCH_LAGS[0]
    periodic = correlation[np.arange(len(lags)), lags] > 0.3 * correlation[:, 0]
    pitch = np.log(lags[periodic] if periodic.any() else np.array([100.0]))
    parts = (cepstra.mean(axis=0), cepstra.std(axis=0), [np.median(pitch), pitch.std()])
    return np.concatenate(parts)


def _mel_filters() -> Array:
    def mel(hertz: Any) -> Any:
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    # Up to 3.8 kHz: recordings may come from a telephone.
    edges = np.linspace(mel(80), mel(3_800), MELS + 2)
    bins = mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE_HZ / FFT)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters: Array = np.clip(np.minimum(rising, falling), 0, None)
    return filters


def _cosines() -> Array:
    cosines: Array = np.cos(np.pi * np.outer(np.arange(CEPSTRA), np.arange(MELS) + 0.5) / MELS)
    return cosines


def _parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)


class SpeakerStatistics(torch.nn.Module):  # type: ignore[misc]
    """The model as FunASR loads it: ``inference`` returns one embedding for each recording."""

    def __init__(self, **_configuration: Any) -> None:
        super().__init__()
        size = 2 * (CEPSTRA - 1) + 2
        self.centre = _parameter(size)
        self.projection = _parameter(VALUES, size)

    def inference(
        self, data_in: Any, **_options: Any
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        found = [torch.from_numpy(statistics(np.asarray(samples))) for samples in data_in]
        vectors = (torch.stack(found) - self.centre) @ self.projection.T
        return [{"spk_embedding": vectors}], {}


def _of_window(samples: Samples, rng: random.Random) -> Array:
    """Statistics of a part as long as those that are embedded."""
    start = rng.randrange(max(1, len(samples) - WINDOW_SAMPLES))
    return statistics(np.resize(samples[start : start + WINDOW_SAMPLES], WINDOW_SAMPLES))


def train(voices: Mapping[str, Voice], directory: Path, rng: random.Random) -> None:
    """Write the model directory: a linear discriminant analysis of utterances of ``voices``."""
    classes = [
        np.stack([_of_window(_at_speed(said(voice, rng), speed), rng) for _ in range(UTTERANCES)])
        for voice in voices.values()
        for speed in SPEEDS
    ]
    centre = np.concatenate(classes).mean(axis=0)
    within = sum(np.cov(each.T) for each in classes) / len(classes)
    within += WITHIN_FLOOR * np.diag(np.diag(within))
    between = np.cov(np.stack([each.mean(axis=0) for each in classes]).T)
    # Whiten the variation within a voice, then keep the directions in which voices differ most.
    scales, axes = np.linalg.eigh(within)
    whiten = (axes / np.sqrt(scales)).T
    _, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    model = SpeakerStatistics()
    model.centre.copy_(torch.from_numpy(centre))
    model.projection.copy_(torch.from_numpy(directions[:, -VALUES:].T @ whiten))
    torch.save({"state_dict": model.state_dict()}, directory / "model.pt")
    OmegaConf.save({"model": MODEL_CLASS, "model_conf": {}}, directory / "config.yaml")
    (directory / "configuration.json").write_text(
        '{"framework": "pytorch", "file_path_metas": {"init_param": "model.pt", '
        '"config": "config.yaml"}}'
    )


# ------------------------------------------------------------------------------------------ speech


def bundled_voices() -> dict[str, Voice]:
    return {
        name: [clip.astype(np.float32) / 32768 for takes in digit_clips(name) for clip in takes]
        for name in VOICES
    }


def recorded_voices(directory: Path) -> dict[str, Voice]:
    """Voices of a directory of ``<word>_<speaker>_<take>.wav``, mono, such as the Free Spoken Digit
    Dataset."""
    voices: dict[str, list[Samples]] = {}
    for path in sorted(directory.glob("*_*_*.wav")):
        voices.setdefault(path.stem.split("_")[1], []).append(_read(path))
    return {name: voices[name] for name in voices}


def _read(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
    return _at_speed(samples / 32768, rate_hz / SAMPLE_RATE_HZ)


def _at_speed(samples: Samples, speed: float) -> Samples:
    places = np.arange(0, len(samples) - 1, speed)
    resampled: Samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
    return resampled


def said(voice: Voice, rng: random.Random) -> Samples:
    """An utterance: some recordings with short pauses, at the same loudness in any voice."""
    pause = np.zeros(SAMPLE_RATE_HZ // 12, np.float32)
    chosen = rng.choices(voice, k=rng.randint(*DIGITS))
    samples = np.concatenate([part for clip in chosen for part in (clip, pause)])
    utterance: Samples = samples * np.float32(0.05 / np.sqrt(np.square(samples).mean()))
    return utterance


def conversation(voices: Mapping[str, Voice], rng: random.Random) -> list[Turn]:
    """``TURNS`` utterances; no speaker has two in a row."""
    turns: list[Turn] = []
    for _ in range(TURNS):
        others = [name for name in voices if not turns or name != turns[-1].speaker]
        speaker = rng.choice(others)
        turns.append(Turn(speaker, said(voices[speaker], rng)))
    return turns


# ------------------------------------------------------------------------------------- measurement


@dataclass(frozen=True, slots=True)
class Errors:
    """Diarization error rates: shares of the speech."""

    at_once: float
    at_the_end: float
    speakers: int
    """Speakers found."""


def load(model: str) -> SpeakerEmbedder:
    """Load ``model`` as a worker loads its ``ASR_SPK_MODEL``."""
    return load_embedder(WorkerSettings(asr_model="fake:0ms", asr_spk_model=model))


def load_stand_in(voices: Mapping[str, Voice]) -> SpeakerEmbedder:
    """Train the stand-in on ``voices`` and load it."""
    funasr_repairs.import_all().tables.register("model_classes", MODEL_CLASS)(SpeakerStatistics)
    with tempfile.TemporaryDirectory() as directory:
        train(voices, Path(directory), random.Random(1))
        return load(directory)


def measure(embedder: SpeakerEmbedder, turns: Sequence[Turn], similarity_min: float) -> Errors:
    """Diarize ``turns``."""
    pcm = [(turn.samples * 32767).astype("<i2").tobytes() for turn in turns]
    durations_ms = [pcm_duration_ms(each) for each in pcm]
    speakers = Speakers(similarity_min)
    for embedding, duration_ms in zip(embedder.embed(pcm), durations_ms, strict=True):
        assert speakers.add(embedding, duration_ms) is None
    truth = [turn.speaker for turn in turns]
    at_once = error_rate(speakers.labels, truth, durations_ms)
    speakers.recluster()
    at_the_end = error_rate(speakers.labels, truth, durations_ms)
    return Errors(at_once, at_the_end, len(set(speakers.labels)))


def error_rate(labels: Sequence[int], truth: Sequence[str], durations_ms: Sequence[int]) -> float:
    """Share of the speech with the wrong speaker, for the best assignment of labels to speakers."""
    shared: Counter[tuple[str, int]] = Counter()
    for label, speaker, duration_ms in zip(labels, truth, durations_ms, strict=True):
        shared[speaker, label] += duration_ms
    names = sorted(set(truth))
    found = [*sorted(set(labels)), *([-1] * len(names))]
    right = max(
        sum(shared[name, label] for name, label in zip(names, chosen, strict=True))
        for chosen in itertools.permutations(found, len(names))
    )
    return 1 - right / sum(durations_ms)


def _without(voices: Mapping[str, Voice], names: Set[str]) -> dict[str, Voice]:
    return {name: voice for name, voice in voices.items() if name not in names}


def main(
    model: Annotated[
        str | None, typer.Option(help="As ASR_SPK_MODEL; else the stand-in, trained at once.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(help="Directory of <word>_<speaker>_<take>.wav; else the bundled voices."),
    ] = None,
    similarity_min: Annotated[
        float, typer.Option(help="As SPEAKER_SIMILARITY_MIN; by default that of the stand-in.")
    ] = SIMILARITY_MIN,
    seeds: Annotated[int, typer.Option(min=1, help="Conversations of each three speakers.")] = 2,
) -> None:
    """Print the diarization error of each three speakers, kept out of the stand-in's training."""
    bundled = bundled_voices()
    tested = recorded_voices(recordings) if recordings is not None else bundled
    given = load(model) if model is not None else None
    stand_in = cache(lambda kept_out: load_stand_in(_without(bundled, kept_out)))
    errors: list[float] = []
    for names in itertools.combinations(sorted(tested), 3):
        embedder = given or stand_in(frozenset(bundled.keys() & set(names)))
        for seed in range(seeds):
            turns = conversation({name: tested[name] for name in names}, random.Random(seed))
            found = measure(embedder, turns, similarity_min)
            errors.append(found.at_the_end)
            typer.echo(
                f"{' '.join(names)}: {found.at_once:.1%} at once, "
                f"{found.at_the_end:.1%} at the end, {found.speakers} speakers"
            )
    mean = sum(errors) / len(errors)
    typer.echo(f"mean at the end: {mean:.1%}, worst: {max(errors):.1%}")
    raise typer.Exit(mean > ERROR_MAX)


if __name__ == "__main__":
    typer.run(main)
