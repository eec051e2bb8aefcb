"""When each token of a Paraformer was spoken, by the weights of its predictor.

Paraformer's predictor (continuous integrate-and-fire, CIF: Gao et al. 2022, arXiv:2206.08317) gives
each encoder frame a weight; each token has a weight of 1 in all, and its place is where half of it
is reached. FunASR's own function takes the places where the integral fires, which lie behind by
whatever the weights before fell short of 1, and is called with its arguments exchanged.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

FRAME_MS = 60
"""One frame of the encoder: six windows, 10 ms apart."""
TOKEN_REACH_MS = 300
"""Farthest that a token begins before its middle, or ends behind it; less beside a neighbour."""


def token_times(weights: npt.NDArray[np.float32], count: int) -> list[list[int]]:
    """Start and end in ms of each of ``count`` tokens, in order and without overlap.

    ``weights``: one for each frame, shape ``(frames,)``.
    """
    reached = np.cumsum(weights, dtype=np.float64)
    if not count or not reached.size or reached[-1] <= 0.0:
        return [[0, 0]] * count
    # Tokens that were left out of the text have taken their weight with them.
    halves = (np.arange(count) + 0.5) * min(1.0, reached[-1] / count)
    frames = np.minimum(np.searchsorted(reached, halves), reached.size - 1)
    before = np.where(frames > 0, reached[frames - 1], 0.0)
    within = (halves - before) / np.maximum(reached[frames] - before, 1e-6)
    middles = np.maximum.accumulate((frames + np.clip(within, 0.0, 1.0)) * FRAME_MS)
    between = (middles[:-1] + middles[1:]) / 2
    starts = np.maximum(middles - TOKEN_REACH_MS, np.concatenate(([0.0], between)))
    ends = np.minimum(middles + TOKEN_REACH_MS, np.concatenate((between, [np.inf])))
    times: list[list[int]] = np.rint(np.stack((starts, ends), axis=1)).astype(int).tolist()
    return times


def _as_funasr_calls_it(
    _peaks: Any, weights: Any, tokens: list[str], **_options: Any
) -> tuple[str, list[list[int]]]:
    count = len(tokens) - (tokens[-1:] == ["</s>"])
    return "", token_times(weights.detach().cpu().float().numpy(), count)


def install() -> None:
    """Let FunASR's ``Paraformer`` use these times."""
    module = importlib.import_module("funasr.models.paraformer.model")
    assert hasattr(module, "ts_prediction_lfr6_standard")
    module.ts_prediction_lfr6_standard = _as_funasr_calls_it  # type: ignore[attr-defined]
