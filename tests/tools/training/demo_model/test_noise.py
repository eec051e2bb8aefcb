"""Background noises."""

from __future__ import annotations

import numpy as np
import pytest

from tools.training.demo_model.noise import coloured


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_power_density_falls_with_the_exponent(exponent: float) -> None:
    power = np.abs(np.fft.rfft(coloured(np.random.default_rng(1), exponent, seconds=4))) ** 2
    octaves = [power[400:800].mean(), power[4_000:8_000].mean()]  # 100 to 200 Hz, and a decade up
    assert np.log10(octaves[0] / octaves[1]) == pytest.approx(exponent, abs=0.1)
