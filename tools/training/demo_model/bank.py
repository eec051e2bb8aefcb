"""``python -m tools.training.demo_model.bank``: make the digit speech bank (``tools/voices``,
``tools/samples``) with espeak-ng and flite.

The programs are needed only to change the bank, not to use it. The voices were chosen for clear
digits. The licences of both programs permit free distribution of their output.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf

from tools.lab.digit_speech import (
    BANK_DIR,
    DIGIT_WORDS,
    SAMPLE_RATE_HZ,
    VOICES,
    expected_text,
    speak,
    voice_language,
)
from tools.training.demo_model.synthesis import Voice, synthesise

FRAME_SAMPLES: Final = SAMPLE_RATE_HZ // 100
SPEECH_RMS: Final = 0.08  # of full scale, -22 dBFS: every clip is brought to this level
FADE_SAMPLES: Final = SAMPLE_RATE_HZ // 250


class BankVoice(NamedTuple):
    """A voice of the bank and the two settings in which it speaks every digit."""

    takes: tuple[Voice, Voice]
    source: str
    licence: str


_ESPEAK_LICENCE: Final = "espeak-ng: GPL-3.0 program, output unrestricted"
_FLITE_LICENCE: Final = "flite: CMU free-software licence"


def _espeak(name: str) -> BankVoice:
    takes = (Voice("espeak", name, 150, 44), Voice("espeak", name, 165, 56))
    return BankVoice(takes, f"espeak-ng {name}", _ESPEAK_LICENCE)


def _flite(name: str, pitch_hz: int) -> BankVoice:
    takes = (
        Voice("flite", name, 170, pitch_hz),
        Voice("flite", name, 155, round(pitch_hz * 1.12)),
    )
    return BankVoice(takes, f"flite {name}", _FLITE_LICENCE)


BANK_VOICES: Final[dict[str, BankVoice]] = {
    "zh_lan": _espeak("cmn+f2"),
    "zh_jun": _espeak("cmn+m3"),
    "zh_mei": _espeak("cmn+f4"),
    "zh_tao": _espeak("cmn"),
    "en_slt": _flite("slt", 172),
    "en_rms": _flite("rms", 96),
    "en_awb": _flite("awb", 112),
    "en_sam": _espeak("en-us"),
}


def trim(samples: npt.NDArray[np.float32], margin_frames: int = 3) -> npt.NDArray[np.float32]:
    """The part of a recording with speech: frames above -34 dB of the loudest, and a margin.

    ``samples`` is mono at 16 kHz, shape ``(samples,)``; frames are of 10 ms.
    """
    frames = len(samples) // FRAME_SAMPLES
    power = samples[: frames * FRAME_SAMPLES].reshape(frames, FRAME_SAMPLES) ** 2
    rms = np.sqrt(power.mean(axis=1))
    voiced = np.flatnonzero(rms > 0.02 * rms.max())
    begin = max(0, int(voiced[0]) - margin_frames) * FRAME_SAMPLES
    return samples[begin : (int(voiced[-1]) + 1 + margin_frames) * FRAME_SAMPLES]


def bank_clip(voice: Voice, word: str) -> npt.NDArray[np.int16]:
    """One clip: the word by the voice, trimmed, faded at both ends, at the bank's level."""
    speech = trim(synthesise(voice, word)).copy()
    ramp = np.linspace(0.0, 1.0, FADE_SAMPLES, dtype=np.float32)
    speech[:FADE_SAMPLES] *= ramp
    speech[-FADE_SAMPLES:] *= ramp[::-1]
    gain = SPEECH_RMS / float(np.sqrt((speech**2).mean()))
    gain = min(gain, 0.9 / float(np.abs(speech).max()))
    clip: npt.NDArray[np.int16] = np.rint(speech * gain * 32767).astype(np.int16)
    return clip


def write_bank(directory: Path) -> None:
    """Write one FLAC file per voice and the index of clip boundaries into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    index: dict[str, object] = {}
    for name in VOICES:
        bank_voice = BANK_VOICES[name]
        clips: list[npt.NDArray[np.int16]] = []
        bounds: list[list[list[int]]] = []
        position = 0
        for word in DIGIT_WORDS[voice_language(name)]:
            takes: list[list[int]] = []
            for voice in bank_voice.takes:
                clip = bank_clip(voice, word)
                clips.append(clip)
                takes.append([position, position + len(clip)])
                position += len(clip)
            bounds.append(takes)
        sf.write(directory / f"{name}.flac", np.concatenate(clips), SAMPLE_RATE_HZ)
        index[name] = {
            "source": bank_voice.source,
            "licence": bank_voice.licence,
            "clips": bounds,
        }
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (directory / "index.json").write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


def write_samples(directory: Path) -> None:
    """Write the self-check samples, ``digits_<language>.wav`` and their text, into ``directory``.

    Two utterances with a pause between: enough to see recognition and endpointing work.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for voice, digits in (("zh_lan", "25180369"), ("en_slt", "92540178")):
        speech = speak(digits, voice, random.Random(digits), pause_every=4)
        path = directory / f"digits_{voice_language(voice)}.wav"
        sf.write(path, speech, SAMPLE_RATE_HZ, subtype="PCM_16")
        path.with_suffix(".txt").write_text(expected_text(digits, voice) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_bank(BANK_DIR)
    write_samples(BANK_DIR.parent / "samples")
