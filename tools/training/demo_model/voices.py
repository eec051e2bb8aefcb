"""Synthetic voices of the training set and of the test set, and their words.

A test voice is not used in training at all: an espeak-ng variant in no language and accent, a
kokoro style in no mixture. The list was fixed before the first training.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable
from typing import Final, NamedTuple

from tools.lab.digit_speech import VOICES, Language, random_digits, voice_language
from tools.training.demo_model.bank import BANK_VOICES
from tools.training.demo_model.synthesis import ESPEAK_FOREIGN, KOKORO_ENGLISH, Voice


class Request(NamedTuple):
    """One recording to synthesise; ``group`` is the voice's family, by which training samples."""

    group: str
    voice: Voice
    language: Language
    digits: str


# Whispers, robots and effects: people cannot tell some of these digits apart either.
ESPEAK_VARIANTS_LEFT_OUT: Final = frozenset(
    (
        *("whisper", "whisperf", "Demonic", "UniRobot", "anikaRobot", "announcer", "croak"),
        *("fast", "Tweaky", "kaukovalta", "Mr serious", "RicishayMax2", "RicishayMax3"),
        "robosoft",
        *(f"robosoft{number}" for number in range(2, 9)),
    )
)
ESPEAK_VARIANTS_TEST: Final = (
    *("linda", "Andy", "m6", "klatt2", "norbert", "f5", "belinda", "Diogo"),
)
ESPEAK_ENGLISH: Final = (
    *("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"),
)
ESPEAK_ENGLISH_TEST: Final = ("en-us", "en-gb-scotland")  # the accent is not trained on either
KOKORO_STYLES: Final = ("jf_alpha", "jf_nezumi", "jf_tebukuro", "jm_kumo")
KOKORO_STYLE_TEST: Final = "jf_gongitsune"
FLITE_PITCH_HZ: Final = {"slt": 172, "rms": 96, "awb": 112, "kal16": 100, "kal": 100}
FOREIGN_VARIANTS: Final = 24
STRING_DIGITS_MIN: Final = 3
STRING_DIGITS_MAX: Final = 8


def espeak_variants() -> list[str]:
    """Names of the training variants of the installed espeak-ng."""
    command = ["espeak-ng", "--voices=variant"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = [
        line[line.index("!v/") + 3 :].split("  ")[0].strip() for line in lines if "!v/" in line
    ]
    left_out = ESPEAK_VARIANTS_LEFT_OUT.union(ESPEAK_VARIANTS_TEST)
    return sorted(name for name in names if name.split(" (")[0] not in left_out and " " not in name)


def training_requests(rng: random.Random) -> list[Request]:
    """All recordings of the training set but those of kokoro, in an order fit for a pool."""
    requests = [
        *_bank_requests(rng),
        *_espeak_requests(rng),
        *_flite_requests(rng),
        *_small_engine_requests(rng),
    ]
    rng.shuffle(requests)
    return requests


def kokoro_requests(rng: random.Random, voices: int) -> list[Request]:
    """``voices`` random mixtures of styles, each saying single digits and strings.

    Mixing weights may be negative: styles outside the hull of the four are voices too.
    """
    requests: list[Request] = []
    for number in range(voices):
        weights = [rng.gauss(0.25, 0.35) for _ in KOKORO_STYLES]
        if number % 3 == 0:
            weights = [0.0, 0.0, 0.0, 0.0]
            weights[rng.randrange(4)] = 1.0
        total = sum(weights)
        if abs(total) < 0.4:
            continue
        style = " ".join(
            f"{s}:{w / total:.3f}" for s, w in zip(KOKORO_STYLES, weights, strict=True)
        )
        language: Language = "zh" if number % 2 else "en"
        accent = rng.choice((0, 0, 0, 1, 2, 2, *range(3, len(KOKORO_ENGLISH))))
        voice = Voice("kokoro", style, rng.randint(130, 220), accent)
        # Its connected Mandarin merges equal vowels (一一, 五五), so that they cannot be counted,
        # and Mandarin digits are synthesised alone and joined by the mixer.
        connected = _strings(rng, 3) if language == "en" else rng.sample("0123456789", 3)
        texts = [*rng.sample("0123456789", 3), *connected]
        requests += _requests("kokoro", voice, language, texts)
    return requests


def test_requests(rng: random.Random) -> list[Request]:
    """Recordings of the held-out voices; ``group`` names the voice."""
    requests: list[Request] = []
    for variant in ESPEAK_VARIANTS_TEST:
        voices: list[tuple[str, Language]] = [(f"cmn+{variant}", "zh")]
        accent = ESPEAK_ENGLISH_TEST[ESPEAK_VARIANTS_TEST.index(variant) % 2]
        voices.append((f"{accent}+{variant}", "en"))
        for name, language in voices:
            voice = Voice("espeak", name, 160, 50)
            requests += _test_voice(rng, f"espeak {name}", voice, language)
    style = f"{KOKORO_STYLE_TEST}:1.0"
    requests += _test_voice(rng, "kokoro jf_gongitsune zh", Voice("kokoro", style), "zh")
    requests += _test_voice(rng, "kokoro jf_gongitsune en", Voice("kokoro", style), "en")
    requests += _test_voice(rng, "piper en_US-joe", Voice("piper", "joe"), "en")
    requests += _test_voice(rng, "festival ked_diphone", Voice("festival", "ked_diphone"), "en")
    return requests


def _test_voice(
    rng: random.Random, group: str, voice: Voice, language: Language
) -> Iterable[Request]:
    """Every digit alone, and strings of two to eight digits: 110 digits a voice."""
    strings = [random_digits(rng, n) for n in (2, 3, 4, 5, 6, 7, 8) for _ in range(3)][:20]
    return _requests(group, voice, language, [*"0123456789", *strings])


def _requests(group: str, voice: Voice, language: Language, texts: Iterable[str]) -> list[Request]:
    return [Request(group, voice, language, digits) for digits in texts]


def _strings(rng: random.Random, count: int) -> list[str]:
    lengths = (rng.randint(STRING_DIGITS_MIN, STRING_DIGITS_MAX) for _ in range(count))
    return [random_digits(rng, length) for length in lengths]


def _bank_requests(rng: random.Random) -> list[Request]:
    """The bank's voices in many settings, the bank's own among them."""
    requests: list[Request] = []
    for name in VOICES:
        language = voice_language(name)
        for take in BANK_VOICES[name].takes:
            requests += _requests("bank", take, language, [*"0123456789", *_strings(rng, 10)])
        for _ in range(6):
            take = rng.choice(BANK_VOICES[name].takes)
            changed = take._replace(
                words_per_minute=rng.randint(125, 200),
                pitch=round(take.pitch * rng.uniform(0.85, 1.2)),
            )
            requests += _requests("bank", changed, language, "0123456789")
    return requests


def _espeak_requests(rng: random.Random) -> list[Request]:
    requests: list[Request] = []
    for variant in ["", *(f"+{name}" for name in espeak_variants())]:
        for _ in range(3):
            voice = Voice("espeak", f"cmn{variant}", rng.randint(115, 215), rng.randint(20, 80))
            texts = [*"0123456789", *_strings(rng, 5)]
            requests += _requests("espeak", voice, "zh", texts)
        for accent in rng.sample(ESPEAK_ENGLISH, 3):
            name = f"{accent}{variant}"
            voice = Voice("espeak", name, rng.randint(115, 215), rng.randint(20, 80))
            texts = [*"0123456789", *_strings(rng, 5)]
            requests += _requests("espeak", voice, "en", texts)
    return requests


def foreign_requests(rng: random.Random) -> list[Request]:
    """English digits, one by one, in the voices of other languages."""
    requests: list[Request] = []
    variants = espeak_variants()
    for accent in ESPEAK_FOREIGN:
        for variant in rng.sample(variants, FOREIGN_VARIANTS):
            name = f"{accent}+{variant}"
            voice = Voice("espeak", name, rng.randint(115, 215), rng.randint(20, 80))
            requests += _requests("foreign", voice, "en", "0123456789")
    return requests


def accented_requests(rng: random.Random) -> list[Request]:
    """English digits and strings with words drawn from all kinds of accents."""
    requests: list[Request] = []
    for variant in espeak_variants():
        for accent in rng.sample(ESPEAK_ENGLISH, 3):
            name = f"{accent}+{variant}"
            voice = Voice("accented", name, rng.randint(115, 215), rng.randint(20, 80))
            texts = [*"0123456789", *_strings(rng, 6)]
            requests += _requests("accented", voice, "en", texts)
    return requests


def _flite_requests(rng: random.Random) -> list[Request]:
    requests: list[Request] = []
    for name, pitch_hz in FLITE_PITCH_HZ.items():
        for _ in range(10):
            pitch = round(pitch_hz * rng.uniform(0.75, 1.4))
            voice = Voice("flite", name, rng.randint(125, 215), pitch)
            requests += _requests("flite", voice, "en", [*"0123456789", *_strings(rng, 4)])
    return requests


def _small_engine_requests(rng: random.Random) -> list[Request]:
    """festival, pico and hibari: few voices, so several paces and pitches of each."""
    requests: list[Request] = []
    for name in ("kal_diphone", "cmu_us_slt_arctic_hts"):
        for _ in range(2):
            voice = Voice("festival", name, rng.randint(140, 200))
            requests += _requests("small", voice, "en", [*"0123456789", *_strings(rng, 5)])
    for _ in range(10):
        for name in ("en-US", "en-GB"):
            voice = Voice("pico", name, rng.randint(130, 230), rng.randint(70, 150))
            requests += _requests("small", voice, "en", [*"0123456789", *_strings(rng, 6)])
        voice = Voice("hibari", "heart", rng.randint(130, 230))
        requests += _requests("small", voice, "en", [*"0123456789", *_strings(rng, 10)])
    return requests
