"""The figures in the model card, rendered from ``metrics.json`` so that the two agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tools.training.demo_model.report import METRICS_FILE

BEGIN: Final = "<!-- figures: written by python -m tools.training evaluate -->"
END: Final = "<!-- end of figures -->"
CARD_FILE: Final = "README.md"

ROWS: Final[tuple[tuple[str, str], ...]] = (
    ("bank_clean", "speech bank (voices trained on), clean"),
    ("bank_mp3_64k", "speech bank through MP3 64 kbit/s"),
    ("bank_opus_24k", "speech bank through Opus 24 kbit/s"),
    ("bank_8khz", "speech bank through 8 kHz"),
    ("bank_44_1khz", "speech bank through 44.1 kHz"),
    ("bank_noise_10db", "speech bank, noise 10 dB below"),
    ("unheard_synthetic_clean", "synthetic voices not trained on, clean"),
    ("unheard_synthetic_8khz", "synthetic voices not trained on, 8 kHz"),
    ("unheard_synthetic_noise_10db", "synthetic voices not trained on, noise 10 dB below"),
)
HUMAN_ROWS: Final[tuple[tuple[str, str], ...]] = (
    ("unheard_human_single_clean", "single takes"),
    ("unheard_human_strings_clean", "takes joined to strings"),
    ("unheard_human_single_noise_10db", "single takes, noise 10 dB below"),
    ("unheard_human_strings_noise_10db", "strings, noise 10 dB below"),
)


def figures(metrics: dict[str, Any]) -> str:
    """Markdown tables of digit error rates, in per cent of the digits said."""
    lines = ["| recordings | digits | digit errors | strings wrong |", "| --- | --- | --- | --- |"]
    for key, title in ROWS:
        if key in metrics:
            one = metrics[key]
            wrong = f"{one['wrong_recordings']} of {one['recordings']}"
            lines.append(f"| {title} | {one['digits']} | {_percent(one)} | {wrong} |")
    voices = metrics["unheard_synthetic_clean"]["digit_error_percent_by_speaker"]
    lines += ["", "Synthetic voices not trained on, each alone:", ""]
    lines += ["| voice | digit errors |", "| --- | --- |"]
    lines += [f"| {voice} | {rate:.2f} % |" for voice, rate in voices.items()]
    if HUMAN_ROWS[0][0] in metrics:
        lines += _human_table(metrics)
    nothing = metrics["background"]
    lines += [
        "",
        f"Of {nothing['recordings']} recordings of silence or noise, "
        f"{nothing['with_text']} gave a text.",
    ]
    return "\n".join(lines)


def _human_table(metrics: dict[str, Any]) -> list[str]:
    speakers = list(metrics[HUMAN_ROWS[0][0]])
    lines = ["", "Human speakers, each by a model trained without this speaker:", ""]
    lines += [f"| recordings | {' | '.join(speakers)} |", "| --- |" + " --- |" * len(speakers)]
    for key, title in HUMAN_ROWS:
        rates = " | ".join(_percent(metrics[key][speaker]) for speaker in speakers)
        lines.append(f"| {title} | {rates} |")
    return lines


def _percent(one: dict[str, Any]) -> str:
    return f"{one['digit_error_percent']:.2f} %"


def write_figures(directory: Path) -> None:
    """Replace the card's figures by those of the directory's ``metrics.json``."""
    metrics = json.loads((directory / METRICS_FILE).read_text(encoding="utf-8"))
    card = (directory / CARD_FILE).read_text(encoding="utf-8")
    before, rest = card.split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n\n{figures(metrics)}\n\n{END}{after}"
    (directory / CARD_FILE).write_text(text, encoding="utf-8")
