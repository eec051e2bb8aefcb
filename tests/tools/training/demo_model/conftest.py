"""Utterances drawn from random features."""

from __future__ import annotations

import numpy as np
import pytest

from tools.training.demo_model.augment import Mixer
from tools.training.demo_model.clips import Clip, log_mel
from tools.training.demo_model.noise import coloured


@pytest.fixture(scope="module")
def mixer() -> Mixer:
    return Mixer(_clips(), {"bank": 1.0}, [log_mel(coloured(np.random.default_rng(0), 1.0))], 4)


def _clips() -> list[Clip]:
    rng = np.random.default_rng(1)
    shapes = [(digit, rng.normal(12, 2, (40, 80)).astype(np.float16)) for digit in "0123456789"]
    return [Clip("bank", "a voice", "zh", digit, features) for digit, features in shapes]
