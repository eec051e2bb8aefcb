"""Training loop: utterances drawn in a process of their own, and weight averaging."""

from __future__ import annotations

import multiprocessing as mp
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tools.training.demo_model.augment import Mixer, Utterance
from tools.training.demo_model.clips import MELS, Clip, Features
from tools.training.demo_model.network import LFR_FRAMES, LFR_SHIFT, Statistics

BATCH: Final = 64
POOL_BATCHES: Final = 16  # batches of a pool, within which utterances are sorted by length
IGNORED_TOKEN: Final = -1
CLIP_NORM: Final = 5.0
WARMUP_STEPS: Final = 50
AVERAGE_DECAY: Final = 0.998
QUEUE_POOLS: Final = 2
POOL_TIMEOUT_S: Final = 300
MASKS_MAX: Final = 2
MASK_FRAMES_MAX: Final = 9
MASK_BANDS_MAX: Final = 9

Weights = dict[str, torch.Tensor]


class Batch(NamedTuple):
    """Stacked, normalised features ``(batch, frames, 560)`` and tokens, padded with -1."""

    features: torch.Tensor
    feature_lengths: torch.Tensor
    tokens: torch.Tensor
    token_lengths: torch.Tensor


class Recipe(NamedTuple):
    """Inputs of one training run; ``group_weights`` says how often each group is drawn."""

    steps: int
    peak_rate: float
    group_weights: Mapping[str, float]
    seed: int
    decay: float = 1.0  # share of the steps, the last ones, in which the rate falls to nothing

    def rate_factor(self, step: int) -> float:
        """Share of the peak rate at a step: a short rise, level, and the fall at the end."""
        rise = min(1.0, (step + 1) / WARMUP_STEPS)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return max(0.0, min(rise, fall, 1.0))


def stack_frames(features: Features) -> Features:
    """Low frame rate features as FunASR's frontend makes them: seven frames, every sixth."""
    frames = len(features)
    starts = np.arange(-(-frames // LFR_SHIFT)) * LFR_SHIFT - (LFR_FRAMES - 1) // 2
    rows = np.clip(starts[:, None] + np.arange(LFR_FRAMES), 0, frames - 1)
    stacked: Features = features[rows].reshape(len(starts), LFR_FRAMES * MELS)
    return stacked


def measure_statistics(mixer: Mixer, utterances: int) -> Statistics:
    """Mean and standard deviation of each mel band over newly drawn utterances."""
    frames = np.concatenate([mixer.draw().features for _ in range(utterances)])
    return frames.mean(axis=0), frames.std(axis=0)


def masked(features: Features, rng: np.random.Generator) -> Features:
    """Normalised features with a few stretches of frames and bands set to their mean."""
    result = features.copy()
    for _ in range(rng.integers(0, MASKS_MAX + 1)):
        width = int(rng.integers(0, min(MASK_FRAMES_MAX, len(result) // 6) + 1))
        start = int(rng.integers(0, len(result) - width + 1))
        result[start : start + width] = 0.0
    for _ in range(rng.integers(0, MASKS_MAX + 1)):
        width = int(rng.integers(0, MASK_BANDS_MAX + 1))
        start = int(rng.integers(0, MELS - width + 1))
        result[:, start : start + width] = 0.0
    return result


def make_batch(utterances: Sequence[Utterance]) -> tuple[npt.NDArray[Any], ...]:
    """Padded numpy arrays of a batch whose features are normalised already.

    The utterance with most digits goes last: FunASR's integrate-and-fire indexes out of bounds
    when nothing fires in the last one, as happens for an utterance of silence.
    """
    utterances = sorted(utterances, key=lambda utterance: len(utterance.tokens))
    stacked = [stack_frames(utterance.features) for utterance in utterances]
    lengths = np.array([len(features) for features in stacked])
    padded = np.zeros((len(stacked), lengths.max(), LFR_FRAMES * MELS), dtype=np.float32)
    token_lengths = np.array([len(utterance.tokens) for utterance in utterances])
    tokens = np.full((len(stacked), max(1, token_lengths.max())), IGNORED_TOKEN, dtype=np.int64)
    for row, (features, utterance) in enumerate(zip(stacked, utterances, strict=True)):
        padded[row, : len(features)] = features
        tokens[row, : len(utterance.tokens)] = utterance.tokens
    return padded, lengths, tokens, token_lengths


def _produce(pools: Any, mixer: Mixer, statistics: Statistics, seed: int) -> None:
    """Body of a drawing process: pools of batches, for ever."""
    rng = np.random.default_rng(seed)
    mean, deviation = statistics
    torch.set_num_threads(1)
    while True:
        drawn = [mixer.draw() for _ in range(BATCH * POOL_BATCHES)]
        drawn = [
            Utterance(masked((one.features - mean) / deviation, rng), one.tokens) for one in drawn
        ]
        drawn.sort(key=lambda one: len(one.features))
        batches = [make_batch(drawn[i : i + BATCH]) for i in range(0, len(drawn), BATCH)]
        pools.put([batches[i] for i in rng.permutation(len(batches))])


@contextmanager
def drawn_batches(
    clips: Sequence[Clip],
    noises: Sequence[Features],
    recipe: Recipe,
    statistics: Statistics,
) -> Iterator[Iterator[Batch]]:
    """Endless batches, drawn in a process of its own that ends with the context."""
    context = mp.get_context("fork")
    pools: Any = context.Queue(QUEUE_POOLS)
    mixer = Mixer(clips, recipe.group_weights, noises, recipe.seed)
    arguments = (pools, mixer, statistics, recipe.seed)
    process = context.Process(target=_produce, args=arguments, daemon=True)
    process.start()

    def batches() -> Iterator[Batch]:
        while True:
            try:
                pool = pools.get(timeout=POOL_TIMEOUT_S)
            except queue.Empty:
                raise RuntimeError("the process that draws utterances has stopped") from None
            for arrays in pool:
                yield Batch(*(torch.from_numpy(array) for array in arrays))

    try:
        yield batches()
    finally:
        process.terminate()
        process.join()


@contextmanager
def encoder_in_bfloat16(model: Any) -> Iterator[None]:
    """Compute the encoder's products in bfloat16 while the context lasts.

    On processors with such instructions a step takes about half the time; weights, the
    integrate-and-fire predictor and the decoder stay in float32.
    """
    forward = model.encoder.forward

    def in_bfloat16(*arguments: Any, **options: Any) -> tuple[Any, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = forward(*arguments, **options)
        return (outputs[0].float(), *outputs[1:])

    model.encoder.forward = in_bfloat16
    try:
        yield
    finally:
        del model.encoder.forward


def train(
    model: Any,
    batches: Iterator[Batch],
    recipe: Recipe,
    report: Callable[[int, dict[str, float], Weights], None],
) -> Weights:
    """Train ``model`` in place and return the moving average of its weights.

    ``report`` is called after each step with the step's number, smoothed figures, and the
    average so far.
    """
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, recipe.rate_factor)
    average: Weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    figures = {"loss": 0.0, "accuracy": 0.0, "length_error": 0.0}
    model.train()
    started_s = time.monotonic()
    for step in range(1, recipe.steps + 1):
        loss, stats, _weight = model(*next(batches))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimiser.step()
        schedule.step()
        _update_average(average, model.state_dict(), min(AVERAGE_DECAY, step / (step + 10)))
        share = 1 / min(step, 100)
        new = (float(loss), float(stats["acc"]), float(stats["loss_pre"]))
        for name, value in zip(figures, new, strict=True):
            figures[name] += share * (value - figures[name])
        report(step, {**figures, "seconds": time.monotonic() - started_s}, average)
    return average


def _update_average(average: Weights, current: Mapping[str, torch.Tensor], decay: float) -> None:
    with torch.no_grad():
        for name, value in average.items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])
