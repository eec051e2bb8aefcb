"""The self-check of ``asr serve``: transcribes bundled recordings and compares their texts.

Recordings of two languages are checked, and a model may know only one of them, or write numbers
in figures or other characters. A text therefore counts as recognised if it is similar.
"""

from __future__ import annotations

import difflib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asr_client
from tools.ops.procfile import ROOT

DIGITS = (ROOT / "tools/samples/digits_zh.wav", ROOT / "tools/samples/digits_en.wav")
"""For the bundled model."""
SPEECH = (ROOT / "tools/samples/speech_zh.flac", ROOT / "tools/samples/speech_en.flac")
"""For every other model."""
SIMILARITY_MIN = 0.6
"""Least similarity of a recognised text: 2 × equal characters over all characters of both texts."""
TIMEOUT_S = 120.0
"""Limit on one recording, waiting for admission included."""
BUSY_PAUSE_S = 1.0
"""Pause before another try if the server does not name one."""


class SelfCheckError(Exception):
    """A recording could not be transcribed. The message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The transcript of one recording, beside the expected text."""

    path: Path
    text: str
    expected: str
    duration_s: float
    stored: bool

    @property
    def is_recognised(self) -> bool:
        return similarity(self.text, self.expected) >= SIMILARITY_MIN


def recordings_for(models: Sequence[str]) -> tuple[Path, ...]:
    return DIGITS if list(models) == ["demo"] else SPEECH


def similarity(found: str, expected: str) -> float:
    """Return the similarity of the texts, from 0 to 1, without letter case, spaces and
    punctuation."""

    def plain(text: str) -> str:
        return "".join(filter(str.isalnum, text.casefold()))

    return difflib.SequenceMatcher(None, plain(found), plain(expected), autojunk=False).ratio()


def hear(
    path: Path,
    url: str,
    token: str | None,
    language: str | None,
    wait: Callable[[float], bool],
    tls: ssl.SSLContext | None = None,
) -> Heard | None:
    """Transcribe ``path`` in a session of that ``language``, if any. A busy server is asked again
    after its ``Retry-After``.

    ``wait`` pauses for that many seconds and returns true if the check shall stop; then the result
    is None.

    Raises:
        SelfCheckError: if there is no result within ``TIMEOUT_S``.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            found = asr_client.transcribe(
                path,
                url,
                token=token,
                language=language,
                user_id="self-check",
                timeout_s=left_s,
                tls=tls,
            )
        except asr_client.ServerBusyError as error:
            if wait(min(error.retry_after_s or BUSY_PAUSE_S, left_s)):
                return None
            reason = str(error)
        except TimeoutError:
            reason = f"no result within {TIMEOUT_S:.0f} s"
            break
        except asr_client.SessionError as error:
            reason = str(error)
            break
        else:
            return Heard(
                path=path,
                text=found.text,
                expected=path.with_suffix(".txt").read_text(encoding="utf-8").strip(),
                duration_s=found.duration_s,
                stored=found.stored,
            )
    raise SelfCheckError(f"self-check: {path.name}: {reason}")
