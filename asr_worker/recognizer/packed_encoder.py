"""FunASR's SAN-M encoder (Gao et al. 2020, arXiv:2006.01713) without padding, for CPUs.

FunASR pads the utterances of a batch to the longest one, computes the padding as well, and masks
it in every layer. Here the frames of all utterances form one matrix without padding, *packed*:
linear layers and norms compute it as a whole, and attention sees one utterance at a time. The
weights and modules are FunASR's own, quantised or not; values differ by float rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence


def accelerate(encoder: Any, device: str) -> bool:
    """Have FunASR's ``SANMEncoder`` compute with this module. Returns False for another encoder,
    for options that no published model has, and for a GPU, where calls by utterance are slower."""
    supported = device == "cpu" and type(encoder).__name__ == "SANMEncoder" and _supports(encoder)
    if supported:
        encoder.forward = PackedEncoder(encoder).forward
    return supported


def _supports(encoder: Any) -> bool:
    layers = [*encoder.encoders0, *encoder.encoders]
    return (
        type(encoder.embed).__name__ == "SinusoidalPositionEncoder"
        and not encoder.interctc_layer_idx
        and not encoder.interctc_use_conditioning
        and encoder.normalize_before
        and all(type(layer.self_attn).__name__ == "MultiHeadedAttentionSANM" for layer in layers)
        and all(type(layer.feed_forward).__name__ == "PositionwiseFeedForward" for layer in layers)
        and not any(layer.concat_after for layer in layers)
    )


class PackedEncoder:
    """Replaces ``SANMEncoder.forward``, with the modules of ``encoder``."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._layers = [*encoder.encoders0, *encoder.encoders]

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        """Encode padded ``features``, shape ``(batch, frames, width)``. The first ``lengths[i]``
        frames of row i are an utterance. Returns what FunASR does, with zeros as padding."""
        embedded = self._encoder.embed(features * self._encoder.output_size() ** 0.5)
        counts = lengths.tolist()
        hidden = torch.cat([row[:count] for row, count in zip(embedded, counts, strict=True)])
        for layer in self._layers:
            attended = _attend(layer.self_attn, layer.norm1(hidden), counts)
            hidden = attended.add_(hidden) if layer.in_size == layer.size else attended
            hidden = layer.feed_forward(layer.norm2(hidden)).add_(hidden)
        encoded = self._encoder.after_norm(hidden).split(counts)
        return pad_sequence(encoded, batch_first=True), lengths.long(), None


def _attend(attention: Any, hidden: Tensor, counts: Sequence[int]) -> Tensor:
    """Attention and memory of packed frames."""
    projected = attention.linear_q_k_v(hidden)
    heads = projected.view(len(hidden), 3, attention.h, attention.d_k).permute(1, 2, 0, 3)
    attended = [
        scaled_dot_product_attention(*own[:, None]).transpose(1, 2).flatten(2)[0]
        for own in heads.split(counts, dim=2)
    ]
    values = projected[:, -attention.h * attention.d_k :]
    return attention.linear_out(torch.cat(attended)).add_(_remember(attention, values, counts))


def _remember(attention: Any, values: Tensor, counts: Sequence[int]) -> Tensor:
    """The memory (FSMN) of packed frames: their depthwise convolution over time, added to them.

    Zeros between the utterances keep them apart, so that one convolution does for all. Products
    with its taps take half the time of ``conv1d``, which transposes the frames.
    """
    before, after = attention.pad_fn.padding
    gap = values.new_zeros(before + after, values.shape[1])
    spaced = torch.cat([part for own in values.split(counts) for part in (gap, own)] + [gap])
    frames = len(spaced) - len(gap)
    remembered = spaced[before : before + frames].clone()
    for place, tap in enumerate(attention.fsmn_block.weight[:, 0].t().contiguous()):
        remembered.addcmul_(spaced[place : place + frames], tap)
    kept, begin = [], after
    for count in counts:
        kept.append(remembered[begin : begin + count])
        begin += count + len(gap)
    return torch.cat(kept)
