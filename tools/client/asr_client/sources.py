"""The sources of ``asr transcribe``: files, directories, patterns, URLs and ``-``."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STDIN: Final = "-"
_SUFFIXES: Final = (
    ".3g2 .3gp .8svx .aac .ac3 .aif .aifc .aiff .amr .ape .asf .ast .au .avi .avr .awb .caf "
    ".dts .flac .flv .gxf .latm .m4a .m4b .m4v .mjpg .mka .mkv .mlp .mov .mp2 .mp3 .mp4 .mpeg .mpg "
    ".mxf .nut .oga .ogg .opus .paf .pcm .pvf .ra .raw .rm .sf .snd .sox .sph .spx .thd .ts "
    ".tta .voc .w64 .wav .weba .webm .wma .wmv .wtv .wv"
)
AUDIO_SUFFIXES: Final = frozenset(_SUFFIXES.split())
"""Suffixes of the files taken from a directory. A file that is named itself may have any suffix."""


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to transcribe. ``size`` is None if it is not known beforehand."""

    name: str
    size: int | None = None

    @property
    def is_file(self) -> bool:
        return self.size is not None

    @property
    def stem(self) -> str:
        """Name of its transcript, without an ending."""
        if self.name == STDIN:
            return "stdin"
        return Path(self.name.partition("?")[0].rstrip("/")).stem or "audio"


def expand(names: Iterable[str]) -> tuple[list[Source], dict[str, str]]:
    """Return the sources of ``names``, each once, and one line for each name without any.

    The sources of a directory are the audio files in it, at any depth. A pattern such as ``*.mp3``
    is expanded here where the shell has not done it; ``**`` matches directories at any depth.
    """
    found: dict[str, Source] = {}
    errors: dict[str, str] = {}
    for name in names:
        if name == STDIN or name.lower().startswith(("http://", "https://")):
            found.setdefault(name, Source(name))
            continue
        if "://" in name and not Path(name).exists():
            errors[name] = f"{name}: only http:// and https:// addresses are fetched"
            continue
        if not name:
            errors[name] = "'': the name of a source is empty"
            continue
        unread: list[OSError] = []
        try:
            paths = _files(name, unread)
        except OSError as error:
            paths, unread = [], [error]
        # A directory that is removed meanwhile, such as that of a process, had no file to read.
        unread = [error for error in unread if not isinstance(error, FileNotFoundError)]
        errors |= {str(error.filename): f"{error.filename}: {error.strerror}" for error in unread}
        if not paths and not unread:
            errors[name] = _why_none(name)
        for path in paths:
            try:
                source = Source(str(path), path.stat().st_size)
            except OSError as error:
                errors[str(path)] = f"{path}: {error.strerror}"
            else:
                found.setdefault(source.name, source)
    return list(found.values()), errors


def _files(name: str, unread: list[OSError]) -> list[Path]:
    """The errors of directories below ``name`` are added to ``unread``."""
    path = Path(name)
    if path.is_dir():
        return sorted(
            file
            for folder, _, entries in os.walk(path, onerror=unread.append)
            for file in (Path(folder, entry) for entry in entries)
            if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()
        )
    if path.exists() or not glob.has_magic(name):
        return [path]
    # Path.glob() takes no absolute patterns.
    found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
    return [path for path in found if path.is_file()]


def _why_none(name: str) -> str:
    if Path(name).is_dir():
        return f"{name}: no audio file in this directory"
    return f"{name}: no file matches this pattern"


def total_size(sources: Sequence[Source]) -> int | None:
    """Return the bytes of all sources; None if a size is not known."""
    sizes = [source.size for source in sources if source.size is not None]
    return sum(sizes) if len(sizes) == len(sources) else None
