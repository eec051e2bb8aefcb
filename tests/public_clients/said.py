"""The bundled recordings, and the text that a client showed for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import soundfile as sf

from tools.cli.self_check import DIGITS
from tools.lab.encoded_audio import encode

CHINESE, ENGLISH = DIGITS


def text_of(sample: Path) -> str:
    return sample.with_suffix(".txt").read_text(encoding="utf-8").strip()


def as_mp3(sample: Path, folder: Path) -> Path:
    """An MP3 file of the same name, which the server must decode."""
    pcm, rate_hz = sf.read(sample, dtype="int16")
    file = folder / f"{sample.stem}.mp3"
    file.write_bytes(encode(pcm, "mp3", rate_hz, 1))
    return file


def same(shown: str, said: str) -> bool:
    """Whether both have the same characters in the same order. Clients differ in white space."""
    return "".join(shown.split()) == "".join(said.split())


@dataclass(frozen=True)
class Outcome:
    """``how``: the way the client was used; ``shown``: the whole text that it showed."""

    client: str
    commit: str
    how: str
    said: str
    shown: str

    @property
    def right(self) -> bool:
        return same(self.shown, self.said)

    def row(self) -> str:
        shown = "right text" if self.right else f"wrong: {self.shown!r}"
        return f"| {self.client} | `{self.commit}` | {self.how} | {shown} |"
