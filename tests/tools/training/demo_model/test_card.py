"""The model card and the size of its directory."""

from __future__ import annotations

import json

from tools.training.__main__ import MODEL_DIR
from tools.training.demo_model import card

WEIGHTS_BYTES_MAX = 8_000_000


def test_files_are_small_and_name_no_place_on_a_machine() -> None:
    assert (MODEL_DIR / "model.pt").stat().st_size <= WEIGHTS_BYTES_MAX
    for name in ("config.yaml", "configuration.json", "tokens.json", "am.mvn", "README.md"):
        text = (MODEL_DIR / name).read_text(encoding="utf-8")
        assert not any(place in text for place in ("/work", "/tmp", "/home", "/root")), name


def test_card_shows_the_figures_that_were_measured() -> None:
    metrics = json.loads((MODEL_DIR / "metrics.json").read_text(encoding="utf-8"))
    text = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert card.figures(metrics) in text
    for credit in ("Free Spoken Digit Dataset", "Zohar Jackson", "CC BY-SA 4.0"):
        assert credit in text
