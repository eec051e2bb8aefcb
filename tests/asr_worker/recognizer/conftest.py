from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asr_worker.recognizer.written_form import WrittenForm
from tests.asr_worker.recognizer.comparison import load, load_plain


@pytest.fixture(scope="package")
def recognizer(tiny_model_dir: Path) -> WrittenForm:
    return load(tiny_model_dir)


@pytest.fixture(scope="package")
def plain(tiny_model_dir: Path) -> Any:
    """FunASR as it is, for texts of single utterances."""
    return load_plain(tiny_model_dir)
