"""The network of FunASR's ``ParaformerStreaming`` over chunks of many streams at once.

A *row* is one chunk of one stream, and a pass takes any number of rows: of different streams at
different positions, and several of one. The state that a layer keeps of a chunk depends on that
layer's input only, so all rows go through a layer's linear projections together; only attention
over kept frames takes the chunks of a stream in order, in *waves*. The weights and modules are
FunASR's own, quantised or not.

The chunks are those of Zhang et al. 2020 (SCAMA, arXiv:2006.01712) as FunASR 1.4.16 cuts them:
``chunk_size`` ``[0, 10, 5]`` means rows of 15 frames, of which 10 are new, and the row's tokens are
those of its first 10; the other 5 are seen again in the next row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_Sum = list[tuple[int, np.float32]]
"""Frames of a bank, and their weights."""
_ZERO_FRAME = -1
"""Behind the end of a stream, whose last token it may complete."""


class ChunkShape(Struct, frozen=True, kw_only=True):
    """Frames of 60 ms. The defaults are those of FunASR's examples for paraformer-zh-streaming."""

    frames: int = 10
    """New frames of a chunk, and frames whose tokens it gives."""
    ahead: int = 5
    """Frames behind these, which a row sees in advance."""
    look_back: int = 4
    """Chunks that the encoder's attention sees again. The decoder's sees one."""

    @property
    def row_frames(self) -> int:
        return self.frames + self.ahead

    @property
    def kept_frames(self) -> int:
        return self.frames * self.look_back


class Row(Struct, frozen=True, kw_only=True, eq=False):
    """One chunk of one stream."""

    slot: int
    """Index of the stream's state in the network."""
    chunk: int
    """Number of the stream's chunks before this one."""
    wave: int
    """Position of this chunk among the stream's chunks in one call of ``run``, from 0."""
    inputs: Tensor
    """The encoder's inputs, shape ``(frames, width)``: ``row_frames`` but in a last chunk."""
    last: bool
    """The stream ends with this chunk."""


class _Wave(Struct, frozen=True, kw_only=True, eq=False):
    """Rows of different streams: their positions in the pass, and the inputs of attention."""

    rows: slice
    slots: Tensor
    kept: Tensor
    """Which of the kept frames attention sees; shape ``(rows, 1, 1, kept frames)``."""
    replaced: tuple[Tensor, ...]
    """Index of the kept frames that the rows replace."""
    lengths: Tensor | None = None
    """Tokens of each row, in the decoder."""


class UnsupportedNetworkError(Exception):
    """The network differs from those that FunASR publishes in a way that is not implemented."""


class StreamingNetwork:
    """The network of ``model``, a FunASR ``ParaformerStreaming``, with the states of ``slots``
    streams. Call ``open`` before the first row of a stream in a slot.

    Raises:
        UnsupportedNetworkError: if ``model`` has options that no published model has.
    """

    def __init__(self, model: Any, shape: ChunkShape, *, slots: int) -> None:
        _require_supported(model)
        self.shape = shape
        self._encoder, self._decoder = model.encoder, model.decoder
        self._predictor = model.predictor
        self._encoder_layers = [*model.encoder.encoders0, *model.encoder.encoders]
        self._decoder_layers = list(model.decoder.decoders)
        weight = model.encoder.after_norm.weight
        self._device, self._dtype, width = weight.device, weight.dtype, weight.shape[0]
        self._ignored = {model.blank_id, model.sos, model.eos}
        self._context = self._decoder_layers[0].self_attn.kernel_size - 1

        def states(*shape: int) -> Tensor:
            # Not initialised: on a CPU, memory is allocated only for slots that had a stream.
            return torch.empty(slots, *shape, device=self._device, dtype=self._dtype)

        attention = self._encoder_layers[0].self_attn
        kept = attention.h, shape.kept_frames, attention.d_k
        self._encoder_kept = [(states(*kept), states(*kept)) for _ in self._encoder_layers]
        attention = self._decoder_layers[0].src_attn
        kept = attention.h, shape.frames, attention.d_k
        self._decoder_kept = [(states(*kept), states(*kept)) for _ in self._decoder_layers]
        self._inputs_kept = [states(self._context, width) for _ in self._decoder_layers]
        self._frames_carried = states(width)
        """Weighted sum of the frames that belong to the next, incomplete token (CIF) …"""
        self._weight_carried = np.zeros(slots, np.float32)
        """… and the sum of those weights."""
        self._has_decoded = np.zeros(slots, bool)

    @staticmethod
    def bytes_per_stream(model: Any, shape: ChunkShape) -> int:
        """Memory of one slot."""
        encoder, decoders = model.encoder, model.decoder.decoders
        frames = 2 * shape.kept_frames * (len(encoder.encoders0) + len(encoder.encoders))
        context = decoders[0].self_attn.kernel_size - 1
        frames += (2 * shape.frames + context) * len(decoders)
        return int(frames * encoder.output_size() * encoder.after_norm.weight.itemsize)

    def open(self, slot: int) -> None:
        """A new stream begins in ``slot``."""
        for kept in self._inputs_kept:
            kept[slot] = 0.0
        # Attention gives the state of a slot's last stream zero weight, but 0 × NaN would be NaN.
        for keys, values in (*self._encoder_kept, *self._decoder_kept):
            keys[slot] = values[slot] = 0.0
        self._frames_carried[slot] = 0.0
        self._weight_carried[slot] = 0.0
        self._has_decoded[slot] = False

    def embed(self, features: Tensor, first_frame: int) -> Tensor:
        """Return the encoder's inputs of a stream's features from frame ``first_frame`` on; both
        have the shape ``(frames, width)``."""
        scaled = features[None] * self._encoder.output_size() ** 0.5
        inputs: Tensor = self._encoder.embed(scaled, {"start_idx": first_frame})[0]
        return inputs

    def run(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return the token ids of each row. ``rows`` are in the order of their waves, and each
        stream's in order. The states of their slots advance; behind a last row they are undefined.
        """
        lengths = torch.tensor([len(row.inputs) for row in rows])
        hidden = torch.zeros(len(rows), self.shape.row_frames, rows[0].inputs.shape[1])
        for inputs, row in zip(hidden, rows, strict=True):
            inputs[: len(row.inputs)] = row.inputs
        heard = (torch.arange(self.shape.row_frames) < lengths[:, None]).to(self._device)
        hidden = hidden.to(self._device, self._dtype)
        hidden = self._encode(hidden, heard, self._encoder_waves(rows))
        embeddings, counts = self._integrate(hidden * heard[..., None], lengths, rows)
        return self._decode(hidden, heard, embeddings, counts, rows)

    # ------------------------------------------------------------------------------------- encoder

    def _encoder_waves(self, rows: Sequence[Row]) -> list[_Wave]:
        shape, waves = self.shape, []
        heads = torch.arange(self._encoder_kept[0][0].shape[1])[None, :, None]
        for part, members in _by_wave(rows):
            slots = torch.tensor([row.slot for row in members])
            chunks = torch.tensor([row.chunk for row in members])
            known = torch.arange(shape.kept_frames) < chunks[:, None] * shape.frames
            begins = chunks % shape.look_back * shape.frames
            places = begins[:, None] + torch.arange(shape.frames)
            ring = (slots[:, None, None], heads, places[:, None, :])
            waves.append(
                _Wave(
                    rows=part,
                    slots=slots.to(self._device),
                    kept=known[:, None, None].to(self._device),
                    replaced=tuple(index.to(self._device) for index in ring),
                )
            )
        return waves

    def _encode(self, hidden: Tensor, heard: Tensor, waves: list[_Wave]) -> Tensor:
        for layer, kept in zip(self._encoder_layers, self._encoder_kept, strict=True):
            attended = self._attend(layer.self_attn, layer.norm1(hidden), heard, kept, waves)
            hidden = hidden + attended if layer.in_size == layer.size else attended
            hidden = hidden + layer.feed_forward(layer.norm2(hidden))
        encoded: Tensor = self._encoder.after_norm(hidden)
        return encoded

    def _attend(
        self,
        attention: Any,
        hidden: Tensor,
        heard: Tensor,
        kept: tuple[Tensor, Tensor],
        waves: list[_Wave],
    ) -> Tensor:
        *projected, flat = attention.forward_qkv(hidden)
        memory = attention.forward_fsmn(flat * heard[..., None], None)
        attended = _attended(projected, heard, kept, waves, slice(self.shape.frames))
        return attention.linear_out(attended) + memory

    # ----------------------------------------------------------------------------------- predictor

    def _integrate(
        self, hidden: Tensor, lengths: Tensor, rows: Sequence[Row]
    ) -> tuple[Tensor, list[int]]:
        """Return the embeddings of all rows' tokens, and the number of each row's."""
        weights = self._weights(hidden)
        threshold = np.float32(self._predictor.threshold)
        slots = list(dict.fromkeys(row.slot for row in rows))
        # The bank of frames begins with the carried sums of the streams.
        open_sums: dict[int, _Sum] = {
            slot: [(place, np.float32(1.0))] for place, slot in enumerate(slots)
        }
        sums: list[_Sum] = []
        counts = []
        for index, row in enumerate(rows):
            begin = len(slots) + index * self.shape.row_frames
            end = int(lengths[index]) if row.last else self.shape.frames
            frames = [(begin + place, weight) for place, weight in enumerate(weights[index, :end])]
            if row.last:
                frames.append((_ZERO_FRAME, np.float32(self._predictor.tail_threshold)))
            fired, open_sums[row.slot], self._weight_carried[row.slot] = integrate_and_fire(
                frames, open_sums[row.slot], self._weight_carried[row.slot], threshold
            )
            sums += fired
            counts.append(len(fired))
        kept = torch.tensor(slots, device=self._device)
        bank = torch.cat((self._frames_carried[kept], hidden.reshape(-1, hidden.shape[-1])))
        summed = _summed(bank, [*sums, *open_sums.values()])
        self._frames_carried[kept] = summed[len(sums) :]
        return summed[: len(sums)], counts

    def _weights(self, hidden: Tensor) -> npt.NDArray[np.float32]:
        """The predictor's weight of each frame, shape ``(rows, frames)``."""
        predictor = self._predictor
        convolved = predictor.cif_conv1d(predictor.pad(hidden.transpose(1, 2))).relu()
        weights = predictor.cif_output(convolved.transpose(1, 2)).sigmoid()[..., 0]
        weights = (weights * predictor.smooth_factor - predictor.noise_threshold).relu()
        array: npt.NDArray[np.float32] = weights.float().cpu().numpy()
        return array

    # ------------------------------------------------------------------------------------- decoder

    def _decode(
        self,
        hidden: Tensor,
        heard: Tensor,
        embeddings: Tensor,
        counts: list[int],
        rows: Sequence[Row],
    ) -> list[list[int]]:
        """Return the token ids of each row. Rows without a token leave the decoder's states."""
        with_tokens = [index for index, count in enumerate(counts) if count]
        ids: list[list[int]] = [[] for _ in rows]
        if not with_tokens:
            return ids
        memory, heard = hidden[with_tokens], heard[with_tokens]
        lengths = torch.tensor([counts[index] for index in with_tokens], device=self._device)
        is_token = torch.arange(int(lengths.max()), device=self._device) < lengths[:, None]
        x = memory.new_zeros(*is_token.shape, memory.shape[2])
        x[is_token] = embeddings
        waves = self._decoder_waves([rows[index] for index in with_tokens], lengths)
        for number, layer in enumerate(self._decoder_layers):
            inputs = layer.norm2(layer.feed_forward(layer.norm1(x)))
            x = x + self._remember(layer.self_attn.fsmn_block, inputs, number, waves)
            kept = self._decoder_kept[number]
            x = x + self._look_up(layer.src_attn, layer.norm3(x), memory, heard, kept, waves)
        for layer in self._decoder.decoders3:
            x = layer.feed_forward(layer.norm1(x))
        scores = self._decoder.output_layer(self._decoder.after_norm(x[is_token]))
        found = iter(scores.argmax(dim=-1).tolist())
        for index in with_tokens:
            tokens = [next(found) for _ in range(counts[index])]
            ids[index] = [token for token in tokens if token not in self._ignored]
        return ids

    def _decoder_waves(self, rows: Sequence[Row], lengths: Tensor) -> list[_Wave]:
        waves = []
        for part, members in _by_wave(rows):
            slots = [row.slot for row in members]
            places = torch.tensor(slots, device=self._device)
            known = torch.from_numpy(self._has_decoded[slots])[:, None, None, None]
            self._has_decoded[slots] = True
            waves.append(
                _Wave(
                    rows=part,
                    slots=places,
                    kept=known.expand(-1, 1, 1, self.shape.frames).to(self._device),
                    replaced=(places,),
                    lengths=lengths[part],
                )
            )
        return waves

    def _remember(self, block: Any, inputs: Tensor, number: int, waves: list[_Wave]) -> Tensor:
        """The decoder's memory (FSMN): a convolution over a token and those before it."""
        states, places = self._inputs_kept[number], torch.arange(self._context, device=self._device)
        remembered = []
        for wave in waves:
            assert wave.lengths is not None
            extended = torch.cat((states[wave.slots], inputs[wave.rows]), dim=1)
            remembered.append(block(extended.transpose(1, 2)).transpose(1, 2))
            last = (wave.lengths[:, None] + places)[..., None].expand(-1, -1, extended.shape[2])
            states[wave.slots] = extended.gather(1, last)
        return torch.cat(remembered) + inputs

    def _look_up(
        self,
        attention: Any,
        x: Tensor,
        memory: Tensor,
        heard: Tensor,
        kept: tuple[Tensor, Tensor],
        waves: list[_Wave],
    ) -> Tensor:
        projected = attention.forward_qkv(x, memory)
        attended = _attended(projected, heard, kept, waves, slice(-self.shape.frames, None))
        looked_up: Tensor = attention.linear_out(attended)
        return looked_up


def integrate_and_fire(
    frames: list[tuple[int, np.float32]], open_sum: _Sum, total: np.float32, threshold: np.float32
) -> tuple[list[_Sum], _Sum, np.float32]:
    """Continuous integrate-and-fire (Dong and Xu 2020, arXiv:1905.11235): frames are summed by
    their weights, and each time the weights reach the threshold, the sum is a token.

    ``open_sum`` with the weight ``total`` are from earlier frames. Returns the sums of all tokens,
    and the open sum with its weight. In float32 and in the order of FunASR's, so that a weight near
    the threshold falls on the same side.
    """
    sums = []
    open_sum = list(open_sum)
    for frame, weight in frames:
        if weight + total < threshold:
            total = total + weight
            open_sum.append((frame, weight))
        else:
            sums.append([*open_sum, (frame, threshold - total)])
            total = total + weight - threshold
            open_sum = [(frame, total)]
    return sums, open_sum, total


def _summed(bank: Tensor, sums: list[_Sum]) -> Tensor:
    """Weighted sums of the bank's frames, shape ``(sums, width)``."""
    terms = [
        (place, frame, weight)
        for place, of_token in enumerate(sums)
        for frame, weight in of_token
        if frame != _ZERO_FRAME
    ]
    places, frames, weights = (
        torch.from_numpy(np.array(column)).to(bank.device) for column in zip(*terms, strict=True)
    )
    summed = bank.new_zeros(len(sums), bank.shape[1])
    summed.index_add_(0, places, bank[frames] * weights[:, None].to(bank.dtype))
    return summed


def _attended(
    projected: Sequence[Tensor],
    heard: Tensor,
    kept: tuple[Tensor, Tensor],
    waves: list[_Wave],
    new: slice,
) -> Tensor:
    """Attention of the rows of each wave over their kept and their own frames, of which those in
    ``new`` are kept for the next wave. ``projected``: queries, keys and values, by head. Shape
    ``(rows, frames, heads × d)``."""
    attended = []
    for wave in waves:
        queries, *own = (tensor[wave.rows] for tensor in projected)
        keys, values = (
            torch.cat((states[wave.slots], now), dim=2)
            for states, now in zip(kept, own, strict=True)
        )
        visible = torch.cat((wave.kept, heard[wave.rows, None, None]), dim=3)
        attended.append(scaled_dot_product_attention(queries, keys, values, attn_mask=visible))
        for states, now in zip(kept, own, strict=True):
            states[wave.replaced] = now[:, :, new]
    return torch.cat(attended).transpose(1, 2).flatten(2)


def _by_wave(rows: Sequence[Row]) -> list[tuple[slice, list[Row]]]:
    waves, begin = [], 0
    for _, group in groupby(rows, key=lambda row: row.wave):
        members = list(group)
        waves.append((slice(begin, begin + len(members)), members))
        begin += len(members)
    return waves


def _require_supported(model: Any) -> None:
    encoder, decoder, predictor = model.encoder, model.decoder, model.predictor
    layers = [*encoder.encoders0, *encoder.encoders, *decoder.decoders, *decoder.decoders3]
    fsmn = decoder.decoders[0].self_attn
    supported = {
        "encoder": type(encoder).__name__ == "SANMEncoderChunkOpt",
        "encoder's input_layer": type(encoder.embed).__name__ == "StreamSinusoidalPositionEncoder",
        "decoder": type(decoder).__name__ == "ParaformerSANMDecoder",
        # With exactly one such layer FunASR skips it.
        "decoder's att_layer_num": decoder.num_blocks - decoder.att_layer_num <= 1,
        "predictor": type(predictor).__name__ == "CifPredictorV2",
        "normalize_before": all(layer.normalize_before for layer in layers),
        "concat_after": not any(layer.concat_after for layer in layers),
        "decoder's sanm_shfit": tuple(fsmn.pad_fn.padding) == (fsmn.kernel_size - 1, 0),
        # A frame gives one token at most.
        "smooth_factor": predictor.smooth_factor <= predictor.threshold,
        "normalize": model.normalize is None,
    }
    for option, is_supported in supported.items():
        if not is_supported:
            raise UnsupportedNetworkError(f"a streaming Paraformer with another {option}")
