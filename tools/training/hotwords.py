"""``python -m tools.training.hotwords``: the effect of hotwords, through the whole pipeline.

No contextual model is in this repository, so one is made of the bundled model: FunASR's
ContextualParaformer with its weights, whose additional parts (hotword encoder, attention to
hotwords) are trained on noisy digits with lists of hotwords, for about a minute of a core. Then
recordings of voices not used for that training go through a system of its own: without hotwords,
with the spoken words, and with other words.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from omegaconf import OmegaConf

import asr_client
from asr_worker.recognizer import funasr_loading
from asr_worker.recognizer.funasr_recognizer import samples_of
from asr_worker.settings import DEMO_MODEL_DIR
from tools.lab.digit_speech import DIGIT_WORDS, VOICES, random_digits, speak, voice_language
from tools.lab.harness.stack import supervised_stack
from tools.training.demo_model.evaluation import edit_distance, words_of
from tools.training.demo_model.network import TOKENS, WIDTH

TEST_VOICES = ("en_rms", "en_slt", "zh_jun")
DIGITS = (3, 8)
DISTINCT = (2, 4)
"""Different digits of a recording, so that a list of hotwords leaves some out."""
NOISE_DB = (-6.0, 4.0)
"""Signal-to-noise ratio of the recordings that are compared."""
TRAINING_NOISE_DB = (-16.0, 0.0)
"""Signal-to-noise ratio in training: so low that the hotwords are needed to understand it."""
WRONG_MAX = 3
"""Most hotwords of a training list that are not spoken."""
EPOCHS = 30
BATCH = 50
RATE = 4e-3
NO_HOTWORD = 1
"""The token that FunASR adds to each list, for words that are not in it."""
CONTEXTUAL = ("bias_embed", "bias_encoder", "decoder.bias_decoder", "decoder.bias_output")
"""The parts that the bundled model lacks."""
TIMEOUT_S = 120.0

WITHOUT = "without hotwords"
WITH_SPOKEN = "with the spoken words as hotwords"
WITH_OTHERS = "with other words as hotwords"

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Recording:
    voice: str
    digits: str
    samples: Samples

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are said, each once."""
        words = DIGIT_WORDS[voice_language(self.voice)]
        return tuple(words[int(digit)] for digit in sorted(set(self.digits)))

    @property
    def other_words(self) -> tuple[str, ...]:
        """As many words that are not said."""
        others = sorted(set(DIGIT_WORDS[voice_language(self.voice)]) - set(self.words))
        return tuple(others[: len(self.words)])


def record(
    voices: Sequence[str],
    count: int,
    rng: random.Random,
    noise_db: tuple[float, float] = NOISE_DB,
) -> list[Recording]:
    """Strings of a few different digits, in noise."""
    recordings = []
    for number in range(count):
        voice = voices[number % len(voices)]
        few = random_digits(rng, rng.randint(*DISTINCT))
        digits = "".join(rng.choice(few) for _ in range(rng.randint(*DIGITS)))
        speech = speak(digits, voice, rng).astype(np.float32)
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(speech))
        loudness = np.sqrt(np.square(speech).mean()) * 10 ** (-rng.uniform(*noise_db) / 20)
        mixed = np.clip(0.5 * (speech + loudness * noise), -32768, 32767)
        recordings.append(Recording(voice, digits, mixed.astype(np.int16)))
    return recordings


# -------------------------------------------------------------------------------------- the model


def build(directory: Path) -> Any:
    """Write a ContextualParaformer with the bundled model's weights and return it, loaded. Until it
    is trained its texts are the bundled model's, whatever the hotwords."""
    settings: Any = OmegaConf.load(DEMO_MODEL_DIR / "config.yaml")
    settings.model = "ContextualParaformer"
    settings.model_conf.update({"inner_dim": WIDTH, "bias_encoder_type": "lstm"})
    settings.decoder = "ContextualParaformerDecoder"
    OmegaConf.save(settings, directory / "config.yaml")
    for name in ("configuration.json", "tokens.json", "am.mvn"):
        shutil.copy(DEMO_MODEL_DIR / name, directory)
    # Contextual models split hotwords into tokens by this dictionary.
    (directory / "seg_dict").write_text("".join(f"{t} {t}\n" for t in TOKENS), "utf-8")
    weights = torch.load(DEMO_MODEL_DIR / "model.pt", weights_only=True)
    last = len([name for name in weights if name.endswith("src_attn.linear_q.weight")]) - 1
    renamed = {
        name.replace(f"decoder.decoders.{last}.", "decoder.last_decoder."): value
        for name, value in weights.items()
    }
    # Of its two inputs, the attention to the audio passes unchanged, that to hotwords not at all.
    passed = torch.cat([torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH)], dim=1)
    renamed["decoder.bias_output.weight"] = passed[:, :, None]
    torch.save(renamed, directory / "model.pt")
    torch.manual_seed(1)
    return funasr_loading.auto_model(
        directory, device="cpu", ncpu=1, disable_update=True, disable_pbar=True, disable_log=True
    )


def hotword_lists(batch: Sequence[Recording], rng: random.Random) -> list[list[int]]:
    """A list of tokens for each recording, all of the same length: some that are said, some that
    are not, filled up with the token for none of them."""
    lists = []
    for recording in batch:
        words = DIGIT_WORDS[voice_language(recording.voice)]
        said = list(recording.words) if rng.random() < 0.7 else []
        others = sorted(set(words) - set(recording.words))
        chosen = said + rng.sample(others, rng.randint(0, WRONG_MAX))
        lists.append([TOKENS.index(word) for word in chosen])
    longest = max(map(len, lists)) + 1
    return [each + [NO_HOTWORD] * (longest - len(each)) for each in lists]


def train(auto: Any, recordings: Sequence[Recording], epochs: int, rng: random.Random) -> None:
    """Train the parts of ``CONTEXTUAL``."""
    model = auto.model
    model.eval()  # Nothing else of it is trained, dropout included.
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(CONTEXTUAL)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        batches = [_encoded(auto, part) for part in _batches(recordings)]
    optimiser = torch.optim.AdamW(trained, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=epochs * len(batches)
    )
    for _ in range(epochs):
        for batch in rng.sample(batches, len(batches)):
            loss = _loss(model, batch, hotword_lists(batch.recordings, rng))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
            optimiser.step()
            schedule.step()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Outputs for recordings of the parts that are not trained."""

    recordings: Sequence[Recording]
    heard: Any
    """Of the last layer with attention to the audio: its state, and that attention."""
    attended: Any
    mask: Any
    tokens: Any


def _batches(recordings: Sequence[Recording]) -> Iterator[Sequence[Recording]]:
    """Recordings with as many digits share batches: their rows need no padding of tokens."""
    for count in range(DIGITS[0], DIGITS[1] + 1):
        alike = [recording for recording in recordings if len(recording.digits) == count]
        for begin in range(0, len(alike), BATCH):
            yield alike[begin : begin + BATCH]


def _encoded(auto: Any, recordings: Sequence[Recording]) -> _Batch:
    from funasr.utils.load_utils import extract_fbank

    samples = [torch.from_numpy(samples_of(each.samples.tobytes())) for each in recordings]
    features, lengths = extract_fbank(samples, frontend=auto.kwargs["frontend"])
    encoded, encoded_lengths = auto.model.encode(features, lengths)
    tokens = torch.tensor([_tokens(recording) for recording in recordings])
    mask = (torch.arange(encoded.shape[1]) < encoded_lengths[:, None])[:, None].float()
    # The predictor scales its weights so that there are as many tokens as were said, and one more.
    closed = torch.nn.functional.pad(tokens, (0, 1), value=TOKENS.index("</s>"))
    counts = torch.full((len(tokens),), closed.shape[1])
    embeddings = auto.model.predictor(
        encoded, closed, mask, ignore_id=-1, target_label_length=counts
    )
    decoder = auto.model.decoder
    audible = (torch.arange(encoded.shape[1]) < encoded_lengths[:, None])[:, None]
    rows = torch.ones(*closed.shape, 1, dtype=torch.bool)
    state = decoder.decoders(embeddings[0], rows, encoded, audible)[0]
    _, _, heard, attended = decoder.last_decoder(state, rows, encoded, audible)
    return _Batch(recordings, heard, attended, rows, closed)


def _tokens(recording: Recording) -> list[int]:
    words = DIGIT_WORDS[voice_language(recording.voice)]
    return [TOKENS.index(words[int(digit)]) for digit in recording.digits]


def _loss(model: Any, batch: _Batch, hotwords: list[list[int]]) -> Any:
    """Cross entropy of the tokens, with a list of hotwords of one token for each recording."""
    embedded = model.bias_embed(torch.tensor(hotwords))
    rows, count, width = embedded.shape
    _, (states, _) = model.bias_encoder(embedded.reshape(rows * count, 1, width))
    decoder = model.decoder  # Its forward(), from the layers on that are trained.
    biased = decoder.bias_decoder(batch.heard, batch.mask, states.reshape(rows, count, width))[0]
    both = torch.cat([batch.attended, biased], dim=2).transpose(1, 2)
    state = batch.heard + decoder.bias_output(both).transpose(1, 2)
    state = decoder.decoders3(state, batch.mask, None, None)[0]
    found = decoder.output_layer(decoder.after_norm(state))
    return torch.nn.functional.cross_entropy(found.flatten(0, 1), batch.tokens.flatten())


def make(directory: Path, recordings: int, epochs: int) -> None:
    """Build and train the model in ``directory``, by voices other than ``TEST_VOICES``."""
    rng = random.Random(1)
    auto = build(directory)
    voices = [voice for voice in VOICES if voice not in TEST_VOICES]
    train(auto, record(voices, recordings, rng, TRAINING_NOISE_DB), epochs, rng)
    torch.save(auto.model.state_dict(), directory / "model.pt")


# ---------------------------------------------------------------------------------- the comparison


def errors(recording: Recording, text: str) -> int:
    return edit_distance(list(recording.digits), words_of(text, voice_language(recording.voice)))


def through_the_pipeline(directory: Path, recordings: Sequence[Recording]) -> dict[str, float]:
    """Shares of digits that are wrong, by the hotwords of the sessions."""
    wrong = {WITHOUT: 0, WITH_SPOKEN: 0, WITH_OTHERS: 0}
    with supervised_stack({"ASR_MODEL": str(directory), "LOG_LEVEL": "error"}) as stack:
        for recording in recordings:
            lists = (), recording.words, recording.other_words
            for name, hotwords in zip(wrong, lists, strict=True):
                wrong[name] += errors(recording, _heard(stack.url(), recording, hotwords))
    total = sum(len(recording.digits) for recording in recordings)
    return {name: count / total for name, count in wrong.items()}


def _heard(url: str, recording: Recording, hotwords: tuple[str, ...]) -> str:
    with tempfile.NamedTemporaryFile(suffix=".pcm") as file:
        file.write(recording.samples.tobytes())
        file.flush()
        return asr_client.transcribe(file.name, url, hotwords=hotwords, timeout_s=TIMEOUT_S).text


def main(
    recordings: Annotated[int, typer.Option(min=100, help="Of the training.")] = 1_500,
    epochs: Annotated[int, typer.Option(min=1)] = EPOCHS,
    tested: Annotated[int, typer.Option(min=1, help="Recordings that are compared.")] = 90,
    directory: Annotated[
        Path | None,
        typer.Option(help="Keep the model here; one that is here is not trained again."),
    ] = None,
) -> None:
    """Print the errors with and without hotwords; exit with 1 unless hotwords help."""
    with contextlib.ExitStack() as stack:
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "model.pt").exists():
            make(place, recordings, epochs)
        found = through_the_pipeline(place, record(TEST_VOICES, tested, random.Random(2)))
    for name, share in found.items():
        typer.echo(f"{name}: {share:.1%} of the digits are wrong")
    raise typer.Exit(found[WITH_SPOKEN] >= found[WITHOUT])


if __name__ == "__main__":
    typer.run(main)
