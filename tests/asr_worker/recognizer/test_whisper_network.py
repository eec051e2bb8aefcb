from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.tokenizer import get_tokenizer

from asr_worker.recognizer.funasr_recognizer import Samples
from asr_worker.recognizer.whisper_network import (
    EDGE_STATES,
    SILENCES_MAX,
    TOKENS_MIN,
    TOKENS_PER_S_MAX,
    SplicedWhisper,
)
from tests.asr_worker.recognizer import tiny_whisper
from tests.asr_worker.recognizer.comparison import spoken

STATES = 1_500


@pytest.fixture(scope="module")
def network() -> Any:
    return tiny_whisper.network()


@pytest.fixture(scope="module")
def spliced(network: Any) -> SplicedWhisper:
    return SplicedWhisper(network, [(0, 1), (1, 0)])


def speech(seed: int, samples: int = 24_000) -> Samples:
    return (spoken(seed, samples) / 32768).astype(np.float32)


def joined(spliced: SplicedWhisper, network: Any, samples: Samples) -> torch.Tensor:
    """Whisper's own encoder on the utterance's length, with the states of silence behind."""
    level, own = states(network, samples)
    silence = whole(network, torch.full((80, 2 * STATES), level))
    return torch.cat([own, silence[len(own) :]])[None]


def whole(network: Any, mel: torch.Tensor) -> torch.Tensor:
    """``whisper.model.AudioEncoder`` on a spectrogram of any length."""
    positions = network.encoder.positional_embedding
    network.encoder.positional_embedding = positions[: mel.shape[-1] // 2]
    try:
        with torch.no_grad():
            encoded: torch.Tensor = network.encoder(mel[None])[0]
    finally:
        network.encoder.positional_embedding = positions
    return encoded


def states(network: Any, samples: Samples) -> tuple[float, torch.Tensor]:
    length = (len(samples) + 16_000) // 320 * 320
    padded = np.pad(samples, (0, length - len(samples)))
    mel = whisper.log_mel_spectrogram(padded)
    return round(2 * float(mel.min())) / 2, whole(network, mel)[:-EDGE_STATES]


def decoded(network: Any, features: torch.Tensor, language: str | None) -> Any:
    """Whisper's own decoder. Of the special tokens, a trained model writes only the end."""
    tokenizer = get_tokenizer(True)
    options = DecodingOptions(
        language=language,
        fp16=False,
        without_timestamps=True,
        suppress_tokens=[-1, *range(tokenizer.eot + 1, network.dims.n_vocab)],
        sample_len=TOKENS_MIN + round(1.5 * TOKENS_PER_S_MAX),
    )
    with torch.no_grad():
        return DecodingTask(network, options).run(features)[0]


@pytest.mark.parametrize("language", [None, "de"])
def test_texts_and_estimates_are_those_of_whispers_decoder_on_the_joined_states(
    spliced: SplicedWhisper, network: Any, language: str | None
) -> None:
    for seed in range(5):
        samples = speech(seed)
        expected = decoded(network, joined(spliced, network, samples), language)
        (found,) = spliced.decode(spliced.encode([samples]), language)
        assert found.tokens == expected.tokens
        assert found.language == expected.language
        if len(found.tokens) < TOKENS_MIN:
            assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)
        assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-2)


def test_tokens_are_limited_by_the_utterances_own_duration(spliced: SplicedWhisper) -> None:
    """An untrained model hardly ends by itself."""
    encoded = spliced.encode([speech(seed, 16_000 * (1 + seed)) for seed in range(2)])
    lengths = [len(result.tokens) for result in spliced.decode(encoded, "en")]
    assert lengths == [TOKENS_MIN + TOKENS_PER_S_MAX, TOKENS_MIN + 2 * TOKENS_PER_S_MAX]


def test_thirty_seconds_are_encoded_as_whisper_does(spliced: SplicedWhisper, network: Any) -> None:
    samples = np.tile(speech(3, 16_000), 40)[: 30 * 16_000]
    with torch.no_grad():
        features = network.encoder(whisper.log_mel_spectrogram(samples)[None])
    expected = spliced._cross_heads(features)
    found = spliced.encode([samples])
    for (keys, values), (found_keys, found_values) in zip(expected, found.layers, strict=True):
        torch.testing.assert_close(found_keys, keys, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found_values, values, atol=1e-4, rtol=1e-3)
    assert torch.isinf(found.silence_bias).all()


def test_an_utterance_is_the_same_beside_longer_ones(spliced: SplicedWhisper) -> None:
    """Also encoded together, as on a GPU."""
    batch = [speech(seed, random.Random(seed).randint(6_000, 40_000)) for seed in range(6)]
    mels = [spliced._mel(torch.from_numpy(samples)) for samples in batch]
    together = spliced._encode(mels)
    for mel, row in zip(mels, together, strict=True):
        alone = spliced._encode([mel])[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-4, rtol=1e-3)


def test_a_selection_of_utterances_keeps_their_results(spliced: SplicedWhisper) -> None:
    encoded = spliced.encode([speech(seed, 8_000 + 4_000 * seed) for seed in range(3)])
    results = spliced.decode(encoded, "en")
    assert encoded.only([0, 1, 2]) is encoded
    found = spliced.decode(encoded.only([0, 2]), "en")
    assert [result.text for result in found] == [results[0].text, results[2].text]


def test_sampling_is_reproducible_and_leaves_the_generator_alone(spliced: SplicedWhisper) -> None:
    encoded = spliced.encode([speech(1)])
    state = torch.random.get_rng_state()
    first, second = (spliced.decode(encoded, "en", 0.8)[0] for _ in range(2))
    assert first.tokens == second.tokens
    assert first.tokens != spliced.decode(encoded, "en")[0].tokens
    assert torch.equal(torch.random.get_rng_state(), state)


def test_states_of_silence_are_few(spliced: SplicedWhisper) -> None:
    for level in (-1.5, -1.0, -0.5, 0.0, -1.0):
        spliced._silence(level)
    assert list(spliced._silences) == [-0.5, 0.0, -1.0]
    assert len(spliced._silences) == SILENCES_MAX


def test_word_times_are_those_of_whispers_timing(
    spliced: SplicedWhisper, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 30 s, where Whisper's encoder is ours."""
    samples = np.tile(speech(4, 16_000), 40)[: 30 * 16_000]
    encoded = spliced.encode([samples])
    (result,) = spliced.decode(encoded, "en")
    tokenizer = spliced._tokenizer("en")
    mask = torch.tensor([[False, True], [True, False]]).to_sparse()
    monkeypatch.setattr(network, "alignment_heads", mask)
    compiled = whisper.timing.dtw_cpu
    monkeypatch.setattr(whisper.timing, "dtw_cpu", compiled.py_func)
    text = result.tokens[:20]
    expected = whisper.timing.find_alignment(
        network, tokenizer, text, whisper.log_mel_spectrogram(samples), 3_000
    )
    starts = [timing.start for timing in expected]
    prompt = list(tokenizer.sot_sequence_including_notimestamps)
    found = spliced.token_starts_ms(encoded, [prompt], [text], tokenizer.eot)
    position, starts_ms = 0, []
    for timing in expected:
        starts_ms.append(found[0][position])
        position += len(timing.tokens)
    assert starts_ms == [round(1_000 * start) for start in starts]
