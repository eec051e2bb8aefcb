"""A session's way from bytes to words in one process: decoders, speech detection, cutting, and the
demo model, without the bus and without a client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asr_worker.recognizer import loading
from asr_worker.recognizer.protocol import Utterance
from asr_worker.settings import WorkerSettings
from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.formats import AudioError
from gateway.audio.timeline import AudioDecoded
from gateway.audio.vad import VadEngine, VadStream
from gateway.session.endpointer import EndpointerConfig
from gateway.session.segmenter import Segmenter
from tests.gateway.session_driver import LIMITS

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Heard:
    text: str
    errors: tuple[str, ...]
    duration_ms: int


class Ear:
    """Await ``close`` in the end."""

    def __init__(self) -> None:
        self._pool = DecoderPool(4)
        self._vad = VadEngine()
        self._vad.start()
        self._recognizer = loading.build(WorkerSettings.model_validate({"asr_model": "demo"}))

    async def close(self) -> None:
        await self._pool.close()
        self._vad.close()

    async def hear(self, chunks: Sequence[bytes], rate_hz: int | None = 16_000) -> Heard:
        """The words of a session of these chunks, without spaces, and its errors."""
        audio = AudioInput(rate_hz, self._pool, HOUR_MS)
        segmenter = Segmenter("auto", EndpointerConfig(endpoint_silence_ms=700), LIMITS)
        stream, errors, utterances = VadStream(), [], []
        for index, chunk in enumerate(chunks):
            try:
                decoded = await audio.feed(chunk)
            except AudioError as error:
                errors.append(f"{error.code}: {error}")
                if error.was_noise:
                    segmenter.end_utterance()
                decoded = AudioDecoded(pcm=error.pcm)
            segmenter.append(index, decoded)
            probabilities = await self._vad.probabilities(stream, segmenter.take_frames())
            utterances += segmenter.take(probabilities, 0.0)
        try:
            tail = (await audio.finish()).tail
        except AudioError as error:
            errors.append(f"{error.code}: {error}")
            tail = error.pcm
        segmenter.finish(tail)
        probabilities = await self._vad.probabilities(stream, segmenter.take_frames())
        utterances += segmenter.take(probabilities, 0.0)
        found = (
            self._recognizer.recognize([Utterance(pcm=each.pcm) for each in utterances])
            if utterances
            else []
        )
        text = "".join(each.text or "" for each in found).replace(" ", "")
        return Heard(text, tuple(errors), segmenter.duration_ms)
