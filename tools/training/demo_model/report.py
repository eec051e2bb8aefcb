"""Measurements of the model card, and the file that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tools.training.demo_model.evaluation import (
    CHANNELS,
    Recording,
    Score,
    Transcriber,
    background_recordings,
    bank_recordings,
    changed,
    human_recordings,
    score,
)

BANK_SEED: Final = 5
HUMAN_SEED: Final = 6
BACKGROUND_SEED: Final = 7
HUMAN_STRINGS: Final = 150
BACKGROUNDS: Final = 400
METRICS_FILE: Final = "metrics.json"

Metrics = dict[str, Any]


def _both(result: tuple[Score, dict[str, Score]]) -> Metrics:
    """Counts over all, and the digit error rate of each speaker in per cent."""
    total, by_speaker = result
    rates = {name: one.as_json()["digit_error_percent"] for name, one in by_speaker.items()}
    return {**total.as_json(), "digit_error_percent_by_speaker": rates}


def bank_metrics(transcriber: Transcriber, strings: int) -> Metrics:
    """The speech bank, clean and through codecs and resampling; and recordings of nothing."""
    clean = bank_recordings(strings, BANK_SEED)
    some = clean[: max(8, strings // 6)]
    metrics: Metrics = {"bank_clean": _both(score(transcriber, clean))}
    for name, change in CHANNELS.items():
        metrics[f"bank_{name}"] = score(transcriber, changed(some, change))[0].as_json()
    silent = background_recordings(BACKGROUNDS, BACKGROUND_SEED)
    texts = transcriber.texts([recording.samples for recording in silent])
    metrics["background"] = {"recordings": len(silent), "with_text": sum(map(bool, texts))}
    return metrics


def synthetic_metrics(transcriber: Transcriber, held_out: list[Recording]) -> Metrics:
    """Voices that were not trained on, clean, in the telephone's band, and with noise."""
    metrics: Metrics = {"unheard_synthetic_clean": _both(score(transcriber, held_out))}
    for name in ("8khz", "noise_10db"):
        result = score(transcriber, changed(held_out, CHANNELS[name]))
        metrics[f"unheard_synthetic_{name}"] = result[0].as_json()
    return metrics


def human_metrics(work: Path, human: Path) -> Metrics:
    """Each speaker, by the model that was trained without this speaker."""
    recordings = human_recordings(human, HUMAN_STRINGS, HUMAN_SEED)
    metrics: Metrics = {}
    speakers = sorted({recording.speaker for recording in recordings["single"]})
    for speaker in speakers:
        transcriber = Transcriber(work / f"without_{speaker}")
        for kind, listed in recordings.items():
            own = [recording for recording in listed if recording.speaker == speaker]
            results = {"clean": score(transcriber, own)[0]}
            noisy = changed(own, CHANNELS["noise_10db"])
            results["noise_10db"] = score(transcriber, noisy)[0]
            for condition, result in results.items():
                by_speaker = metrics.setdefault(f"unheard_human_{kind}_{condition}", {})
                by_speaker[speaker] = result.as_json()
    for by_speaker in metrics.values():
        by_speaker["all"] = _total(list(by_speaker.values()))
    return metrics


def _total(scores: list[Metrics]) -> Metrics:
    counts = ("digits", "digit_errors", "recordings", "wrong_recordings")
    digits, errors, recordings, wrong = (sum(one[name] for one in scores) for name in counts)
    return dict(Score(digits, errors, recordings, wrong).as_json())


def write_metrics(directory: Path, metrics: Metrics) -> None:
    """Write ``metrics.json``, from which the card's figures are taken."""
    text = json.dumps(metrics, indent=1, ensure_ascii=False)
    (directory / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
