"""ParaformerStreaming (``paraformer-zh-streaming``) over the streams of many utterances in a batch.

A partial job has the audio of its utterance from the beginning. The recogniser keeps the state of
each stream and processes only the new audio: a lost state costs time, but no result.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from msgspec import Struct

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer, Options, samples_of
from asr_worker.recognizer.protocol import ModelLoadError, Utterance
from asr_worker.recognizer.streaming_network import (
    ChunkShape,
    Row,
    StreamingNetwork,
    UnsupportedNetworkError,
)
from wire.messages import BYTES_PER_SAMPLE, Abilities

FRAME_SAMPLES = 960
"""One frame of the encoder: six windows, 10 ms apart. FunASR recognises no shorter rest."""
PASS_ROWS_MAX = 64
"""Chunks that go through the network at once; further ones follow in another pass. Larger passes
gain nothing on a CPU."""
PARTIAL_CHUNKS_MAX = 4
"""Chunks that one partial result processes. A stream whose state was lost catches up over several,
with the text so far, so that the streams of a lost worker do not delay final results."""
STREAMS_MAX = 256
"""Streams whose state is kept; beyond it the one unused for longest is evicted."""
STATES_BYTES_MAX = 1 << 30
"""Memory for the states of streams, which may allow fewer than ``STREAMS_MAX``. A stream of
paraformer-zh-streaming takes 9.2 MB."""
IDLE_S_MAX = 60.0
"""A stream without new audio for this long is forgotten, with the audio that it has heard."""


class _Stream(Struct, kw_only=True, eq=False):
    """An utterance's stream, and its text so far."""

    slot: int
    used_s: float
    heard: bytes = b""
    """The audio of its whole chunks."""
    chunks: int = 0
    tokens: list[int] = []


class ParaformerStreaming(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.frontends.wav_frontend",
        "funasr.models.paraformer.cif_predictor",
        "funasr.models.paraformer.decoder",
        "funasr.models.paraformer_streaming.model",
        "funasr.models.scama.encoder",
        "funasr.models.specaug.specaug",
        "funasr.tokenizer.char_tokenizer",
    )
    can: ClassVar = Abilities(streaming=True)
    batches: ClassVar = True

    def __init__(
        self, auto: Any, *, model: str, device: str, shape: ChunkShape | None = None
    ) -> None:
        super().__init__(auto, model=model, device=device)
        self._frontend = auto.kwargs["frontend"]
        self._frontend.dither = 0.0
        self._tokenizer = auto.kwargs["tokenizer"]
        self._shape = shape = shape or ChunkShape()
        slots = STATES_BYTES_MAX // StreamingNetwork.bytes_per_stream(auto.model, shape)
        slots = max(1, min(slots, STREAMS_MAX))
        try:
            self._network = StreamingNetwork(auto.model, shape, slots=slots)
        except UnsupportedNetworkError as error:
            raise ModelLoadError(f"model {model!r}: {error} is not supported", final=True) from None
        self._free_slots = list(range(slots))
        self._streams: OrderedDict[Hashable, _Stream] = OrderedDict()
        """In the order of their last use."""

    @property
    def chunk_samples(self) -> int:
        """New audio after which a stream may have further tokens."""
        return self._shape.frames * FRAME_SAMPLES

    def _generate(self, batch: list[Utterance], options: Options) -> list[dict[str, Any]]:
        from funasr.utils.postprocess_utils import sentence_postprocess

        found: dict[int, list[int]] = {}
        waiting = dict(enumerate(batch))
        while waiting:
            turn = self._next_turn(waiting)
            streams = [self._continued(key, batch[index]) for index, key in turn.items()]
            try:
                with torch.inference_mode():
                    self._process(streams, [batch[index] for index in turn])
            except Exception:
                for key in turn.values():
                    self._forget(key)
                raise
            for (index, key), stream in zip(turn.items(), streams, strict=True):
                found[index] = list(stream.tokens)
                del waiting[index]
                if batch[index].stream is None or not batch[index].partial:
                    self._forget(key)
        texts = map(self._tokenizer.ids2tokens, (found[index] for index in range(len(batch))))
        return [{"text": sentence_postprocess(tokens)[0]} for tokens in texts]

    # -------------------------------------------------------------------------------------- streams

    def _next_turn(self, waiting: dict[int, Utterance]) -> dict[int, Hashable]:
        """Return utterances of different streams, as many as have slots, with the keys of these."""
        turn: dict[Hashable, int] = {}
        for index, utterance in waiting.items():
            key: Hashable = ("alone", index) if utterance.stream is None else utterance.stream
            if key not in turn and len(turn) < len(self._streams) + len(self._free_slots):
                turn[key] = index
        now_s = time.monotonic()
        for key in turn:
            if key in self._streams:
                self._streams.move_to_end(key)
                self._streams[key].used_s = now_s
        while self._streams:
            key, stream = next(iter(self._streams.items()))
            if now_s - stream.used_s <= IDLE_S_MAX:
                break
            self._forget(key)
        return {index: key for key, index in turn.items()}

    def _continued(self, key: Hashable, utterance: Utterance) -> _Stream:
        """The stream of ``key`` if it has heard the beginning of the utterance, else a new one."""
        known = self._streams.get(key)
        if known is not None:
            if utterance.pcm.startswith(known.heard):
                return known
            self._forget(key)
        if not self._free_slots:
            self._forget(next(iter(self._streams)))
        stream = _Stream(slot=self._free_slots.pop(), used_s=time.monotonic())
        self._network.open(stream.slot)
        self._streams[key] = stream
        return stream

    def _forget(self, key: Hashable) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._free_slots.append(stream.slot)

    # --------------------------------------------------------------------------------- recognition

    def _process(self, streams: list[_Stream], utterances: list[Utterance]) -> None:
        """Process the whole chunks that are new of each stream, of a partial one at most
        ``PARTIAL_CHUNKS_MAX``; of a final one all audio."""
        rows = [
            (row, stream)
            for stream, utterance in zip(streams, utterances, strict=True)
            for row in self._rows(stream, utterance)
        ]
        rows.sort(key=lambda pair: pair[0].wave)
        for begin in range(0, len(rows), PASS_ROWS_MAX):
            part = rows[begin : begin + PASS_ROWS_MAX]
            found = self._network.run([row for row, _ in part])
            for tokens, (_, stream) in zip(found, part, strict=True):
                stream.tokens.extend(tokens)
        for _, stream in rows:
            stream.chunks += 1
        for stream, utterance in zip(streams, utterances, strict=True):
            heard = stream.chunks * self.chunk_samples * BYTES_PER_SAMPLE
            stream.heard = utterance.pcm[:heard]

    def _rows(self, stream: _Stream, utterance: Utterance) -> list[Row]:
        """The chunks of ``utterance`` that ``stream`` has not heard."""
        shape = self._shape
        samples = len(utterance.pcm) // BYTES_PER_SAMPLE
        chunks = samples // self.chunk_samples
        is_last = not utterance.partial
        if not is_last:
            chunks = min(chunks, stream.chunks + PARTIAL_CHUNKS_MAX)
        frames = chunks * shape.frames
        if is_last and samples % self.chunk_samples >= FRAME_SAMPLES:
            windows = self._frontend.compute_frame_num(
                samples,
                self._frontend.frame_sample_length,
                self._frontend.frame_shift_sample_length,
            )
            frames = -(-windows // self._frontend.lfr_n)
        count = chunks - stream.chunks + is_last
        if not count:
            return []
        # Without a frame behind the last whole chunk, the last row has only what that saw ahead.
        # FunASR scales this twice, which the first layer's normalisation undoes.
        first = stream.chunks * shape.frames - shape.ahead
        inputs = self._inputs(utterance.pcm, first, frames)
        return [
            Row(
                slot=stream.slot,
                chunk=stream.chunks + wave,
                wave=wave,
                inputs=inputs[wave * shape.frames :][: shape.row_frames],
                last=is_last and wave == count - 1,
            )
            for wave in range(count)
        ]

    def _inputs(self, pcm: bytes, first: int, end: int) -> torch.Tensor:
        """The encoder's inputs for the frames from ``first`` to before ``end``; frames before the
        beginning are zero."""
        frontend = self._frontend
        begin = max(0, first)
        missing = torch.zeros(begin - first, frontend.output_size())
        if end <= begin:
            return missing
        # A frame is the fbank windows 6 i − 3 to 6 i + 3; at the ends the outermost is repeated.
        reach = (frontend.lfr_m - 1) // 2
        first_window = max(0, begin * frontend.lfr_n - reach)
        shift = frontend.frame_shift_sample_length
        end_sample = ((end - 1) * frontend.lfr_n + reach) * shift + frontend.frame_sample_length
        heard = pcm[first_window * shift * BYTES_PER_SAMPLE : end_sample * BYTES_PER_SAMPLE]
        audio = torch.from_numpy(samples_of(heard))[None]
        cache = {"input_cache": torch.empty(0)}
        windows = frontend.forward_fbank(audio, [audio.shape[1]], cache=cache)[1][0]
        centres = torch.arange(begin, end)[:, None] * frontend.lfr_n - first_window
        places = (centres + torch.arange(-reach, reach + 1)).clamp(0, len(windows) - 1)
        features = windows[places].flatten(1)
        if frontend.cmvn is not None:
            features = frontend.apply_cmvn(features, frontend.cmvn)
        return torch.cat((missing, self._network.embed(features, begin)))
