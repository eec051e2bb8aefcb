"""Speaker embeddings by a FunASR speaker model, such as CAM++, beside the recogniser.

Speaker models do not mask padding, so only audio of equal length gives the same embedding in a
batch as alone. As in FunASR's diarization, an utterance is embedded in windows of 1.5 s. Windows of
many utterances share a batch, and the utterance's embedding is the mean of its windows' embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import structlog
import torch
from msgspec.structs import replace

from asr_worker.recognizer.funasr_recognizer import Samples, samples_of
from asr_worker.recognizer.protocol import ModelLoadError, Recognition, Recognizer, Utterance
from wire.messages import SAMPLE_RATE_HZ, Abilities, pcm_duration_ms
from wire.validation import EMBEDDING_BYTES_MAX

EMBEDDED_MS_MIN = 300
"""A shorter utterance gets no embedding. One shorter than a window is repeated to fill it."""
WINDOW_SAMPLES = SAMPLE_RATE_HZ * 3 // 2
WINDOWS_MAX = 4
"""Windows of an utterance, spread evenly. CAM++ needs about 0.1 s of a core for each."""
BATCH_WINDOWS_MAX = 32
"""Windows in one call of the model, which keeps 20 MB for each in CAM++."""


class SpeakerEmbedder:
    """Embeds utterances by a ``funasr.AutoModel``. Use it only on the thread that built it."""

    model_class: ClassVar = "CAMPPlus"
    modules: ClassVar = ("funasr.models.campplus.model",)
    """The FunASR modules that register the model's class."""

    def __init__(self, auto: Any, name: str) -> None:
        """Raises ModelLoadError if the model is not a speaker model."""
        self._auto = auto
        noise = np.random.default_rng(0).normal(0.0, 1e-2, WINDOW_SAMPLES).astype(np.float32)
        try:
            (vector,) = self._vectors([noise])
            size = 4 * len(vector)
        except Exception as error:
            raise ModelLoadError(
                f"ASR_SPK_MODEL: {name!r} ({type(auto.model).__name__}) is not a speaker model: "
                f"{type(error).__name__}",
                final=True,
            ) from error
        if size > EMBEDDING_BYTES_MAX:
            raise ModelLoadError(
                f"ASR_SPK_MODEL: embeddings of {name!r} have {size} bytes, more than "
                f"{EMBEDDING_BYTES_MAX}",
                final=True,
            )

    def embed(self, utterances: Sequence[bytes]) -> list[bytes]:
        """Return an embedding of length 1, as float32, for each PCM; empty for a short one. Raises
        any exception of FunASR."""
        windows = [_windows(pcm) for pcm in utterances]
        vectors = iter(self._vectors([window for each in windows for window in each]))
        return [_packed(list(islice(vectors, len(each)))) for each in windows]

    def _vectors(self, windows: list[Samples]) -> npt.NDArray[np.float32]:
        """Shape ``(windows, values)``; each row has length 1."""
        rows = []
        for start in range(0, len(windows), BATCH_WINDOWS_MAX):
            batch = windows[start : start + BATCH_WINDOWS_MAX]
            found = self._auto.generate(input=batch, batch_size=len(batch), disable_pbar=True)
            made = (result["spk_embedding"] for result in found)
            rows += [each.reshape(-1, each.shape[-1]) for each in made]
        if not rows:
            return np.empty((0, 0), np.float32)
        vectors: npt.NDArray[np.float32] = torch.cat(rows).float().cpu().numpy()
        if len(vectors) != len(windows):
            raise ValueError(f"{len(vectors)} embeddings of {len(windows)} windows")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def _windows(pcm: bytes) -> list[Samples]:
    if pcm_duration_ms(pcm) < EMBEDDED_MS_MIN:
        return []
    samples = samples_of(pcm)
    if len(samples) < WINDOW_SAMPLES:
        return [np.resize(samples, WINDOW_SAMPLES)]
    count = min(WINDOWS_MAX, -(-len(samples) // WINDOW_SAMPLES))
    starts = np.linspace(0, len(samples) - WINDOW_SAMPLES, count).astype(int)
    return [samples[start : start + WINDOW_SAMPLES] for start in starts]


def _packed(vectors: list[Samples]) -> bytes:
    if not vectors:
        return b""
    mean: Samples = np.mean(vectors, axis=0)
    length = float(np.linalg.norm(mean))
    if not 0.0 < length < np.inf:  # Digital silence in some models.
        return b""
    packed: bytes = (mean / length).astype("<f4").tobytes()
    return packed


class WithSpeakers:
    """A recogniser whose results have speaker embeddings, if they are asked for."""

    def __init__(self, recognizer: Recognizer, embedder: SpeakerEmbedder) -> None:
        self._recognizer = recognizer
        self._embedder = embedder
        self.model = recognizer.model
        self.device = recognizer.device

    @property
    def abilities(self) -> Abilities:
        return replace(self._recognizer.abilities, speakers=True)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """See ``Recognizer``. Texts do not depend on the speaker model: if it fails, embeddings are
        empty. An utterance without a text has no speaker."""
        recognitions = self._recognizer.recognize(utterances)
        wanted = [
            index
            for index, utterance in enumerate(utterances)
            if utterance.speakers and not utterance.partial and recognitions[index].text
        ]
        try:
            embeddings = self._embedder.embed([utterances[index].pcm for index in wanted])
        except Exception as error:
            structlog.get_logger().warning(
                "speaker_embedding_failed", utterances=len(wanted), error=type(error).__name__
            )
            return recognitions
        for index, embedding in zip(wanted, embeddings, strict=True):
            recognitions[index] = replace(recognitions[index], embedding=embedding)
        return recognitions
