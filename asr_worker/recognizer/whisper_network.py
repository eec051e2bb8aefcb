"""Whisper's network (Radford et al. 2022, arXiv:2212.04356) on utterances shorter than 30 s.

Whisper always encodes 30 s, which is more than half of its processing time, and it repeats itself
endlessly if its input is just shorter. Here the encoder gets the utterance and one second of
silence. The states of the remaining silence are stored, so what the decoder attends to is still
30 s. Its keys and values of them are stored, too, once for all utterances of a batch.

Importing this module imports ``whisper``, whose methods it overrides; pyproject.toml bounds the
version.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import whisper
from msgspec import Struct
from torch.nn import functional
from whisper.audio import N_SAMPLES, N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask, Inference, LogitFilter
from whisper.tokenizer import LANGUAGES, get_tokenizer

from asr_worker.recognizer import word_alignment
from asr_worker.recognizer.funasr_recognizer import Samples
from wire.messages import Token

SILENCE_S = 1.0
"""Silence encoded with each utterance."""
EDGE_STATES = 10
"""The last states of an utterance, 20 ms each, that stored ones replace: they reflect that the
audio ends there, which it never does in Whisper's training."""
LEVEL_STEP = 0.5
"""The lowest value of a spectrogram, rounded to this, selects the stored states."""
SILENCES_MAX = 3
"""Levels that are stored; the one used least recently is dropped. One takes 37 MB with Whisper
base. Speech has two or three."""
TOKENS_PER_S_MAX = 16
TOKENS_MIN = 24
"""Limit of an utterance's tokens: this many, and ``TOKENS_PER_S_MAX`` a second. Fast speech has 8.
A text that reaches it repeats itself."""

Heads = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, each of shape ``(utterances, heads, positions, width)``."""


class Encoded(Struct, frozen=True):
    """Utterances as the decoder attends to them."""

    layers: list[Heads]
    """Of the utterances' own states, padded."""
    own_bias: torch.Tensor
    silence_bias: torch.Tensor
    """Zero, or −∞ for positions that an utterance does not have: shape
    ``(utterances, 1, 1, positions)``."""
    silences: tuple[list[Heads], ...]
    """Stored states of silence, for each utterance; utterances of one level share a list."""
    audio_s: tuple[float, ...]

    def only(self, indices: list[int]) -> Encoded:
        """Return the utterances at ``indices``."""
        if indices == list(range(len(self.audio_s))):
            return self
        return Encoded(
            [(keys[indices], values[indices]) for keys, values in self.layers],
            self.own_bias[indices],
            self.silence_bias[indices],
            tuple(self.silences[index] for index in indices),
            tuple(self.audio_s[index] for index in indices),
        )

    def levels(self) -> list[tuple[list[int], list[Heads]]]:
        """Indices of the utterances of each level, with its silence."""
        found: dict[int, tuple[list[int], list[Heads]]] = {}
        for index, silence in enumerate(self.silences):
            found.setdefault(id(silence), ([], silence))[0].append(index)
        return list(found.values())


class SplicedWhisper:
    """Encodes, decodes and aligns batches of utterances. Not thread-safe.

    ``alignment_heads``, pairs of layer and head, are those of the decoder's cross-attention that
    follow the audio; empty: those of the upper layers.
    """

    def __init__(self, network: Any, alignment_heads: Iterable[tuple[int, int]]) -> None:
        self.network = network
        """``whisper.Whisper``."""
        self._states_max: int = network.dims.n_audio_ctx
        self._silences: OrderedDict[float, list[Heads]] = OrderedDict()
        """By level, the one used last at the end."""
        self._heads: defaultdict[int, list[int]] = defaultdict(list)
        for layer, head in alignment_heads or network.alignment_heads.indices().T.tolist():
            self._heads[layer].append(head)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the network knows."""
        return tuple(LANGUAGES)[: self.network.num_languages] if self.multilingual else ("en",)

    @property
    def multilingual(self) -> bool:
        return bool(self.network.is_multilingual)

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.network.encoder.conv1.weight.dtype
        return dtype

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def encode(self, batch: Sequence[Samples]) -> Encoded:
        """Encode utterances of at most 30 s."""
        device = self.network.device
        mels = [self._mel(torch.from_numpy(samples).to(device)) for samples in batch]
        # One utterance is enough work for a processor's cores; a GPU's need many.
        parts = [[mel] for mel in mels] if device.type == "cpu" else [mels]
        rows = [
            states[: mel.shape[-1] // 2]
            for part in parts
            for mel, states in zip(part, self._encode(part), strict=True)
        ]
        rows = [row if len(row) == self._states_max else row[:-EDGE_STATES] for row in rows]
        counts = torch.tensor([len(row) for row in rows], device=device)[:, None, None, None]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        own = torch.arange(padded.shape[1], device=device) < counts
        silent = torch.arange(self._states_max, device=device) >= counts
        return Encoded(
            layers=self._cross_heads(padded),
            own_bias=padded.new_zeros(own.shape).masked_fill(~own, -math.inf),
            silence_bias=padded.new_zeros(silent.shape).masked_fill(~silent, -math.inf),
            silences=tuple(self._silence(_level(mel)) for mel in mels),
            audio_s=tuple(len(samples) / SAMPLE_RATE for samples in batch),
        )

    def _cross_heads(self, states: torch.Tensor) -> list[Heads]:
        return [
            (
                _heads(block.cross_attn.key(states), block.cross_attn).contiguous(),
                _heads(block.cross_attn.value(states), block.cross_attn).contiguous(),
            )
            for block in self.network.decoder.blocks
        ]

    def _mel(self, samples: torch.Tensor) -> torch.Tensor:
        """Spectrogram of the utterance with its silence, shape ``(mels, 2 × states)``."""
        length = min(len(samples) + round(SILENCE_S * SAMPLE_RATE), N_SAMPLES)
        length -= length % N_SAMPLES_PER_TOKEN
        padded = functional.pad(samples, (0, max(0, length - len(samples))))[:length]
        mel: torch.Tensor = whisper.log_mel_spectrogram(padded, self.network.dims.n_mels)
        return mel.to(self._dtype)

    def _encode(self, mels: list[torch.Tensor]) -> torch.Tensor:
        """``AudioEncoder.forward`` on inputs shorter than 30 s, each masked behind its end.

        The convolutions of a row see zeros behind its end, as they do without a batch.
        """
        encoder = self.network.encoder
        states = [mel.shape[-1] // 2 for mel in mels]
        longest = max(states)
        padded = torch.stack([functional.pad(m, (0, 2 * longest - m.shape[-1])) for m in mels])
        hidden = functional.gelu(encoder.conv1(padded))
        hidden = functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = (hidden + encoder.positional_embedding[:longest]).to(hidden.dtype)
        mask = None
        if min(states) < longest:
            ends = torch.tensor(states, device=hidden.device)[:, None]
            mask = (torch.arange(longest, device=hidden.device) < ends)[:, None, None]
        for block in encoder.blocks:
            normed = block.attn_ln(hidden)
            attention = block.attn
            keys, values = (_heads(m(normed), attention) for m in (attention.key, attention.value))
            hidden = hidden + _attend(attention, normed, keys, values, mask)
            hidden = hidden + block.mlp(block.mlp_ln(hidden))
        found: torch.Tensor = encoder.ln_post(hidden)
        return found

    def _silence(self, level: float) -> list[Heads]:
        """Of 30 s whose spectrogram is ``level`` everywhere."""
        if level not in self._silences:
            if len(self._silences) == SILENCES_MAX:
                self._silences.popitem(last=False)
            shape, device = (self.network.dims.n_mels, 2 * self._states_max), self.network.device
            mel = torch.full(shape, level, dtype=self._dtype, device=device)
            self._silences[level] = self._cross_heads(self._encode([mel]))
        self._silences.move_to_end(level)
        return self._silences[level]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def decode(
        self, encoded: Encoded, language: str | None, temperature: float = 0.0
    ) -> list[DecodingResult]:
        """Decode in ``language``, or in the one that is detected for each utterance.

        A ``temperature`` above 0 samples, with a fixed seed, so that results are reproducible.
        """
        options = DecodingOptions(
            language=language if self.multilingual else "en",
            temperature=temperature,
            without_timestamps=True,
            fp16=self._dtype == torch.float16,
        )
        task = _Task(self, encoded, options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            results: list[DecodingResult] = task.run(encoded.own_bias)
        return results

    def hidden(
        self,
        tokens: torch.Tensor,
        encoded: Encoded,
        past: list[Heads],
        aligned: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """``TextDecoder.forward`` without its last product, on ``tokens`` that follow those of
        ``past``, which it extends.

        ``aligned`` gets the attention's logits of the alignment heads.
        """
        decoder = self.network.decoder
        offset = past[0][0].shape[2] if past else 0
        end = offset + tokens.shape[1]
        hidden = decoder.token_embedding(tokens) + decoder.positional_embedding[offset:end]
        hidden = hidden.to(self._dtype)
        mask = None
        if tokens.shape[1] > 1:
            mask = torch.ones(tokens.shape[1], end, dtype=torch.bool, device=hidden.device)
            mask = mask.tril(offset)
        extended = []
        levels = encoded.levels()
        for layer, block in enumerate(decoder.blocks):
            attention, normed = block.attn, block.attn_ln(hidden)
            own = (_heads(m(normed), attention) for m in (attention.key, attention.value))
            if past:
                own = (torch.cat(both, dim=2) for both in zip(past[layer], own, strict=True))
            keys, values = own
            extended.append((keys, values))
            hidden = hidden + _attend(attention, normed, keys, values, mask)
            attention, normed = block.cross_attn, block.cross_attn_ln(hidden)
            query = _heads(attention.query(normed), attention)
            query = query * query.shape[-1] ** -0.5
            if aligned is not None and layer in self._heads:
                heads = self._heads[layer]
                keys = encoded.layers[layer][0]
                aligned.append(query[:, heads] @ keys[:, heads].transpose(-1, -2))
            hidden = hidden + attention.out(_attend_spliced(query, encoded, levels, layer))
            hidden = hidden + block.mlp(block.mlp_ln(hidden))
        past[:] = extended
        found: torch.Tensor = decoder.ln(hidden)
        return found

    def logits(self, tokens: torch.Tensor, encoded: Encoded, past: list[Heads]) -> torch.Tensor:
        """Logits of the token behind each of ``tokens``; see ``hidden``."""
        hidden = self.hidden(tokens, encoded, past)
        weight = self.network.decoder.token_embedding.weight.to(hidden.dtype)
        return functional.linear(hidden, weight).float()

    def words(self, encoded: Encoded, results: Sequence[DecodingResult]) -> list[list[Token]]:
        """Return the words of ``results``, which are those of ``encoded``, with their times."""
        if not results:
            return []
        tokenizers = [self._tokenizer(result.language) for result in results]
        texts = [result.tokens for result in results]
        prompts = [list(t.sot_sequence_including_notimestamps) for t in tokenizers]
        starts_ms = self.token_starts_ms(encoded, prompts, texts, tokenizers[0].eot)
        return [
            word_alignment.words(tokenizer, text, starts)
            for tokenizer, text, starts in zip(tokenizers, texts, starts_ms, strict=True)
        ]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def token_starts_ms(
        self,
        encoded: Encoded,
        prompts: Sequence[list[int]],
        texts: Sequence[list[int]],
        end_token: int,
    ) -> list[list[int]]:
        """Return the start of each token of ``texts``, decoded behind ``prompts``, and the end."""
        rows = [[*p, *text, end_token] for p, text in zip(prompts, texts, strict=True)]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [end_token] * (longest - len(row)) for row in rows])
        logits: list[torch.Tensor] = []
        self.hidden(tokens.to(self.network.device), encoded, [], logits)
        found = []
        for prompt, row, own, audio_s in zip(
            prompts, rows, torch.cat(logits, dim=1), encoded.audio_s, strict=True
        ):
            states = max(1, round(audio_s * 1000) // word_alignment.STATE_MS)
            spoken = own[:, : len(row), :states].float().cpu()
            found.append(word_alignment.token_starts_ms(spoken, len(prompt)))
        return found

    def _tokenizer(self, language: str) -> Any:
        languages = self.network.num_languages
        return get_tokenizer(
            self.multilingual, num_languages=languages, language=language, task="transcribe"
        )


def _level(mel: torch.Tensor) -> float:
    return round(float(mel.min()) / LEVEL_STEP) * LEVEL_STEP


def _heads(hidden: torch.Tensor, attention: Any) -> torch.Tensor:
    """Shape ``(utterances, positions, width)`` → ``(utterances, heads, positions, width)``."""
    return hidden.unflatten(-1, (attention.n_head, -1)).transpose(1, 2)


def _attend(
    attention: Any,
    hidden: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """``MultiHeadAttention.forward`` on keys and values that are there."""
    query = _heads(attention.query(hidden), attention)
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    out: torch.Tensor = attention.out(mixed.transpose(1, 2).flatten(2))
    return out


def _attend_spliced(
    query: torch.Tensor,
    encoded: Encoded,
    levels: list[tuple[list[int], list[Heads]]],
    layer: int,
) -> torch.Tensor:
    """Attention to an utterance's own states and those of silence behind them.

    ``query`` is scaled, of shape ``(utterances, heads, tokens, width)``. Utterances of one level
    share one product with its silence, so that is read from memory once.
    """
    own_keys, own_values = encoded.layers[layer]
    own = query @ own_keys.transpose(-1, -2) + encoded.own_bias
    silent = encoded.silence_bias.repeat(1, query.shape[1], query.shape[2], 1)
    tokens = query.shape[2]
    for rows, silence in levels:
        keys = silence[layer][0][0]
        part = query[rows].transpose(0, 1).flatten(1, 2) @ keys.transpose(-1, -2)
        silent[rows] += part.unflatten(1, (len(rows), tokens)).transpose(0, 1)
    weights = torch.cat([own, silent], dim=-1).softmax(dim=-1)
    own, silent = weights.split((own.shape[-1], silent.shape[-1]), dim=-1)
    mixed = own @ own_values
    for rows, silence in levels:
        part = silent[rows].transpose(0, 1).flatten(1, 2) @ silence[layer][1][0]
        mixed[rows] += part.unflatten(1, (len(rows), tokens)).transpose(0, 1)
    return mixed.transpose(1, 2).flatten(2)


class _Inference(Inference):  # type: ignore[misc]
    """Remembers the keys and values of an utterance's tokens."""

    def __init__(self, spliced: SplicedWhisper, encoded: Encoded) -> None:
        self._spliced = spliced
        self._encoded = encoded
        self._past: list[Heads] = []
        self._first: torch.Tensor | None = None
        """Logits behind the first token, which were computed to detect the language."""

    def first_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        self._first = self._spliced.logits(tokens, self._encoded, self._past)
        return self._first

    def logits(self, tokens: torch.Tensor, _features: torch.Tensor) -> torch.Tensor:
        done = self._past[0][0].shape[2] if self._past else 0
        found = self._spliced.logits(tokens[:, done:], self._encoded, self._past)
        if self._first is not None:
            found, self._first = torch.cat([self._first, found], dim=1), None
        return found


class _TextOnly(LogitFilter):  # type: ignore[misc]
    """Allows no special token but the end, and only the end behind as many tokens as an utterance
    of its duration can have."""

    def __init__(self, end_token: int, begin: int, encoded: Encoded) -> None:
        self._end_token = end_token
        self._begin = begin
        limits = [TOKENS_MIN + round(TOKENS_PER_S_MAX * audio_s) for audio_s in encoded.audio_s]
        self._limits = torch.tensor(limits, device=encoded.own_bias.device)

    def apply(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        logits[:, self._end_token + 1 :] = -math.inf
        ended = self._limits <= tokens.shape[1] - self._begin
        logits[ended] = -math.inf
        logits[ended, self._end_token] = 0.0


class _Task(DecodingTask):  # type: ignore[misc]
    """Whisper's decoding of utterances that are encoded already."""

    def __init__(self, spliced: SplicedWhisper, encoded: Encoded, options: DecodingOptions) -> None:
        super().__init__(spliced.network, options)
        self.inference = _Inference(spliced, encoded)
        self.logit_filters.append(_TextOnly(self.tokenizer.eot, self.sample_begin, encoded))

    def _get_audio_features(self, features: torch.Tensor) -> torch.Tensor:
        return features  # Nothing reads them but ``run``, which counts them.

    def _detect_language(
        self, features: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[list[str], None]:
        """Write the most probable language into ``tokens``, as ``whisper.detect_language`` does."""
        if self.options.language is not None:
            return [self.options.language] * len(features), None
        assert self.sot_index == 0
        logits = self.inference.first_logits(tokens[:, :1].to(features.device))[:, 0]
        ids = torch.tensor(self.tokenizer.all_language_tokens, device=logits.device)
        best = logits[:, ids].argmax(dim=-1)
        tokens[:, 1] = ids[best].to(tokens.device)
        codes = self.tokenizer.all_language_codes
        return [codes[index] for index in best.tolist()], None
