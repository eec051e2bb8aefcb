"""An untrained ParaformerStreaming as a FunASR model directory.

Its predictor gives a token about every four frames, so that short utterances have several.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.asr_worker.recognizer.tiny_model import write, write_statistics
from tools.lab.random_paraformer import TINY, configuration, network


def build(directory: Path, settings: dict[str, Any] | None = None) -> Path:
    """Write the model directory and return it. ``settings`` replace those of the tiny size."""
    settings = settings or configuration(TINY)
    model = network(settings, len(TINY.tokens), tokens_per_frame=0.27, spread=20.0)
    files = {
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    write(directory, settings, model, files)
    (directory / "tokens.json").write_text(json.dumps(TINY.tokens, ensure_ascii=False), "utf-8")
    write_statistics(directory)
    return directory
