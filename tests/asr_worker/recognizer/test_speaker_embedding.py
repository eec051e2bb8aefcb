from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import ModelLoadError, Recognition, Utterance
from asr_worker.recognizer.speaker_embedding import (
    BATCH_WINDOWS_MAX,
    EMBEDDED_MS_MIN,
    WINDOW_SAMPLES,
    SpeakerEmbedder,
    WithSpeakers,
)
from asr_worker.settings import WorkerSettings
from tests.asr_worker.recognizer import tiny_speaker
from tests.asr_worker.recognizer.comparison import load_plain, spoken
from wire.messages import Abilities, Failure


@pytest.fixture(scope="module")
def speaker_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speaker.build(tmp_path_factory.mktemp("speaker"))


@pytest.fixture(scope="module")
def embedder(speaker_dir: Path) -> SpeakerEmbedder:
    return SpeakerEmbedder(load_plain(speaker_dir), "tiny")


def vector(embedding: bytes) -> np.ndarray:
    return np.frombuffer(embedding, "<f4")


def test_a_batch_equals_one_by_one(embedder: SpeakerEmbedder) -> None:
    audio = [spoken(seed).tobytes() for seed in range(2 * BATCH_WINDOWS_MAX // 3)]
    audio[3] = audio[3][: 32 * 700]
    together = embedder.embed(audio)
    for pcm, embedding in zip(audio, together, strict=True):
        (alone,) = embedder.embed([pcm])
        assert len(alone) == 4 * tiny_speaker.VALUES
        assert np.linalg.norm(vector(embedding)) == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(vector(embedding), vector(alone), atol=1e-5)


def test_one_window_equals_funasrs_own(embedder: SpeakerEmbedder, speaker_dir: Path) -> None:
    samples = spoken(1)[:WINDOW_SAMPLES]
    assert len(samples) == WINDOW_SAMPLES
    (ours,) = embedder.embed([samples.tobytes()])
    (found,) = load_plain(speaker_dir).generate(input=[samples.astype(np.float32) / 32768])
    funasrs = found["spk_embedding"][0].numpy()
    np.testing.assert_allclose(vector(ours), funasrs / np.linalg.norm(funasrs), atol=1e-5)


def test_a_short_utterance_has_none_and_leaves_the_others(embedder: SpeakerEmbedder) -> None:
    long = spoken(2).tobytes()
    short = long[: 32 * (EMBEDDED_MS_MIN - 1)]
    assert embedder.embed([short]) == [b""]
    none, some = embedder.embed([short, long])
    assert none == b"" and some != b""
    assert embedder.embed([]) == []


def test_every_part_of_a_long_utterance_counts(embedder: SpeakerEmbedder) -> None:
    samples = np.concatenate([spoken(seed) for seed in range(4)])[: 4 * WINDOW_SAMPLES]
    (whole,) = embedder.embed([samples.tobytes()])
    for window in range(4):
        changed = samples.copy()
        changed[window * WINDOW_SAMPLES : (window + 1) * WINDOW_SAMPLES] //= 3
        changed[window * WINDOW_SAMPLES :][:8_000] = 0
        (other,) = embedder.embed([changed.tobytes()])
        assert not np.allclose(vector(other), vector(whole), atol=1e-4)


class Recognizer(FakeRecognizer):
    def __init__(self) -> None:
        super().__init__("fake:0ms")

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        found = super().recognize(utterances)
        failed = Recognition(text=None, failure=Failure(code="c", message="m"))
        noise = Recognition(text="")
        of = {b"failing": failed, b"noise": noise}
        return [of.get(u.pcm[:7].rstrip(b"\0"), f) for u, f in zip(utterances, found, strict=True)]


def test_embeddings_are_for_final_texts_that_need_them(embedder: SpeakerEmbedder) -> None:
    recognizer = WithSpeakers(Recognizer(), embedder)
    assert recognizer.abilities == Abilities(batch_jobs=512, speakers=True)
    pcm = spoken(3).tobytes()
    utterances = [
        Utterance(pcm=pcm),
        Utterance(pcm=pcm, speakers=True),
        Utterance(pcm=pcm, speakers=True, partial=True),
        Utterance(pcm=b"failing" + pcm, speakers=True),
        Utterance(pcm=b"noise\0\0" + pcm, speakers=True),
    ]
    found = recognizer.recognize(utterances)
    assert [bool(each.embedding) for each in found] == [False, True, False, False, False]
    assert found[1].embedding == embedder.embed([pcm])[0]
    assert found[0].text == found[1].text


def test_a_failing_speaker_model_leaves_the_texts(
    embedder: SpeakerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_utterances: Sequence[bytes]) -> list[bytes]:
        raise RuntimeError

    monkeypatch.setattr(embedder, "embed", fail)
    recognizer = WithSpeakers(Recognizer(), embedder)
    (found,) = recognizer.recognize([Utterance(pcm=spoken(3).tobytes(), speakers=True)])
    assert found.text and found.embedding == b""


def test_a_worker_with_a_speaker_model(speaker_dir: Path) -> None:
    recognizer = build(WorkerSettings(asr_model="fake:0ms", asr_spk_model=str(speaker_dir)))
    assert recognizer.abilities.speakers and recognizer.model == "fake:0ms"
    (found,) = recognizer.recognize([Utterance(pcm=spoken(3).tobytes(), speakers=True)])
    assert len(found.embedding) == 4 * tiny_speaker.VALUES


def test_another_model_is_one_clear_error(tiny_model_dir: Path, tmp_path: Path) -> None:
    settings = WorkerSettings(asr_model="fake:0ms", asr_spk_model=str(tiny_model_dir))
    with pytest.raises(ModelLoadError, match=r"ASR_SPK_MODEL: .*Paraformer.* not a speaker model"):
        build(settings)
    missing = WorkerSettings(
        asr_model="fake:0ms", asr_spk_model="cam++", asr_model_dir=tmp_path / "none"
    )
    with pytest.raises(ModelLoadError, match=r"asr models pull cam\+\+") as caught:
        build(missing)
    assert caught.value.final
