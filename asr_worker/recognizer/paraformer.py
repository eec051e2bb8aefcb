"""Paraformer (Gao et al. 2022, arXiv:2206.08317) and its variants."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer
from wire.messages import Abilities

FRAME_MS = 60
"""One encoder frame: six windows, 10 ms apart."""
TOKEN_REACH_MS = 300
"""Longest time from a token's middle to its start or end; shorter next to a neighbour."""


def token_times(weights: npt.NDArray[np.float32], count: int) -> list[list[int]]:
    """Return start and end in ms of each of ``count`` tokens, in order and without overlap.

    ``weights`` are those of the predictor (continuous integrate-and-fire, CIF: Gao et al. 2022,
    arXiv:2206.08317), one for each frame, shape ``(frames,)``. Each token has a total weight of 1;
    its middle is where half of that is reached.
    """
    reached = np.cumsum(weights, dtype=np.float64)
    if not count or not reached.size or reached[-1] <= 0.0:
        return [[0, 0]] * count
    # A token left out of the text leaves its weight to the others.
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


class _Variant(FunasrRecognizer):
    batches: ClassVar = True
    modules: ClassVar = (
        "funasr.frontends.wav_frontend",
        "funasr.models.bicif_paraformer.cif_predictor",
        "funasr.models.contextual_paraformer.decoder",
        "funasr.models.contextual_paraformer.model",
        "funasr.models.paraformer.decoder",
        "funasr.models.sanm.encoder",
        "funasr.models.seaco_paraformer.model",
        "funasr.models.specaug.specaug",
        "funasr.tokenizer.char_tokenizer",
    )


class Paraformer(_Variant):
    can: ClassVar = Abilities(word_times=True)
    fixed_options: ClassVar = (("pred_timestamp", True),)

    @classmethod
    def prepare(cls) -> None:
        funasr_repairs.replace_token_times(token_times)


class BiCifParaformer(_Variant):
    can: ClassVar = Abilities(word_times=True)


class ContextualParaformer(_Variant):
    can: ClassVar = Abilities(hotwords="words")


class SeacoParaformer(_Variant):
    can: ClassVar = Abilities(hotwords="words", word_times=True)
