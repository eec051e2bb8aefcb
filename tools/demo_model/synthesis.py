"""Speech synthesis by programs installed on the training machine.

Only training and the making of the speech bank need this module. Every synthesiser is reached
through its command line, so none becomes a dependency of the project.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr  # type: ignore[import-untyped]

SAMPLE_RATE_HZ: Final = 16_000
SYNTHESIS_TIMEOUT_S: Final = 60

Engine = Literal["espeak", "flite", "festival"]


class Voice(NamedTuple):
    """One setting of one voice of a synthesiser.

    ``pitch`` is in the engine's own measure: 0 to 99 for espeak, hertz for flite, unused for
    festival. ``words_per_minute`` is espeak's speed; for the others it scales duration, 170 being
    the voice's own pace.
    """

    engine: Engine
    name: str
    words_per_minute: int
    pitch: int


def synthesise(voice: Voice, text: str) -> npt.NDArray[np.float32]:
    """Speech of ``text``, mono 16 kHz in -1..1, shape ``(samples,)``.

    Raises subprocess.CalledProcessError if the synthesiser fails and FileNotFoundError if it is
    not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command, program_input = _command(voice, text, wav)
        subprocess.run(
            command,
            input=program_input,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SYNTHESIS_TIMEOUT_S,
        )
        samples, sample_rate_hz = sf.read(wav, dtype="float32")
    if sample_rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(samples, dtype=np.float32)


def _command(voice: Voice, text: str, wav: Path) -> tuple[list[str], bytes | None]:
    """Command line of the voice's engine, and what the program reads from its standard input."""
    stretch = f"{170 / voice.words_per_minute:.3f}"
    match voice.engine:
        case "espeak":
            speed, pitch = str(voice.words_per_minute), str(voice.pitch)
            options = ["-v", voice.name, "-s", speed, "-p", pitch, "-w", str(wav)]
            return ["espeak-ng", *options, text], None
        case "flite":
            settings = {
                "duration_stretch": stretch,
                "int_f0_target_mean": str(voice.pitch),
            }
            flags = [f for key, value in settings.items() for f in ("--setf", f"{key}={value}")]
            return ["flite", "-voice", voice.name, *flags, "-t", text, "-o", str(wav)], None
        case "festival":
            script = f"(voice_{voice.name}) (Parameter.set 'Duration_Stretch {stretch})"
            return ["text2wave", "-eval", script, "-o", str(wav)], text.encode()
