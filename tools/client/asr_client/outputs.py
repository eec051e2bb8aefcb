"""The files of transcripts, and their formats."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from asr_client.rest import Rest, session_path
from asr_client.sources import Source

Format = Literal["txt", "srt", "vtt", "json"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
STDOUT: Final = "-"


class OutputError(ValueError):
    """The options do not fit each other. The message is one line."""


def format_of(wanted: Format | None, output: str | None) -> Format:
    """Return ``wanted``, or else the format of the name ``output``, or else text.

    Raises:
        OutputError: If the name ends with something that is no format, or with another one.
    """
    is_file = output is not None and not output.endswith("/") and not Path(output).is_dir()
    suffix = Path(output or "").suffix[1:].lower() if is_file else ""
    named = "txt" if suffix == "text" else next((form for form in FORMATS if form == suffix), None)
    if wanted is not None and named not in (None, wanted):
        raise OutputError(f"{output}: -f {wanted} would write {wanted} into a file named .{suffix}")
    if wanted is not None or not suffix:
        return wanted or "txt"
    if named is not None:
        return named
    raise OutputError(
        f"{output}: .{suffix} names no format: use one of {', '.join(FORMATS)}, or name it by -f"
    )


def paths(sources: Sequence[Source], output: str | None, form: Format) -> list[Path | None]:
    """Return for each source the file of its transcript; None: standard output.

    ``output`` names the file if there is one source and no directory of that name, or else the
    directory. Directories are created. ``-`` is standard output. Sources of equal names get the
    ending of their file, or a number.

    Raises:
        OutputError: If several transcripts would share one file.
        OSError: If the directory cannot be created or written to.
    """
    if output is None or output == STDOUT:
        if len(sources) > 1 and form in ("srt", "vtt"):
            raise OutputError(f"{form} of several sources needs a directory: -o DIRECTORY")
        return [None] * len(sources)
    path = Path(output)
    if not (path.is_dir() or output.endswith("/")):
        if len(sources) == 1:
            _require_writable(path.parent)
            return [path]
        if path.suffix or path.exists():
            raise OutputError(f"{output}: several sources need a directory: -o {path.stem}/")
    _require_writable(path)
    return [path / f"{name}.{form}" for name in _names(sources)]


def _require_writable(directory: Path) -> None:
    """Create ``directory`` if it does not exist. It is needed hours later, when the text is there.

    Raises:
        OSError: If it cannot be created or written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))


def _names(sources: Sequence[Source]) -> list[str]:
    stems = Counter(source.stem for source in sources)
    names = [
        source.stem if stems[source.stem] == 1 else Path(source.name).name for source in sources
    ]
    taken: Counter[str] = Counter()
    unique = []
    for name in names:
        taken[name] += 1
        unique.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return unique


def transcript(rest: Rest, session_id: str, form: Format, extra: dict[str, Any]) -> str:
    """Return the transcript of a stored session as the server writes it, so that it is the same
    here, on the page and over REST. ``extra`` are further fields of JSON.

    Raises:
        SessionError: If the server does not have it.
    """
    path = session_path(session_id)
    if form == "json":
        return as_json(rest.get_json(path) | extra)
    name = "text" if form == "txt" else form
    return rest.get(path, {"format": name}).decode("utf-8", "replace")


def as_json(value: Any, *, is_line: bool = False) -> str:
    """Return ``value`` as text for people, or as a line of JSON Lines."""
    return json.dumps(value, ensure_ascii=False, indent=None if is_line else 2) + "\n"
