"""``python -m tools.lab.audio_fuzz``: damaged audio files to the gateway's decoders.

A file of spoken digits is cut, sliced, reordered, or damaged in its header. The decoders must give
audio or a named refusal within a time limit: never an internal error, and never raw PCM that the
file does not contain, because models find words in noise.

Exit codes: 0 no problem; 1 there is one; 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

import structlog
import typer
from rich.console import Console
from rich.progress import track

from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.formats import AudioError
from tools.lab.digit_speech import speak
from tools.lab.encoded_audio import CONTAINERS, encode

CASE_S_MAX: Final = 60.0
"""Time for one file. A decoder that hangs is given up long before."""
HOUR_MS: Final = 3_600_000
HEADER_BYTES: Final = 96
CODES: Final = frozenset({"bad_audio", "audio_too_long"})
HOLDS_PCM: Final = frozenset(
    {
        "wav",
        "rf64",
        "w64",
        "voc",
        "aiff",
        "caf",
        "mov",
        "au",
        "wav f64",
        "wav a-law",
        "ircam",
        "sox",
    }
)
"""Containers whose content, without its header, may well be raw PCM."""

RAW_BYTES_MAX: Final = 5_000
"""A shorter piece of a file, 150 ms of PCM, cannot be judged, and holds no word."""

console = Console(stderr=True, highlight=False)


@dataclass
class Findings:
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------- mutations


def _cut_start(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(1, len(data)) :]


def _cut_end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut_within(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted(rng.sample(range(len(data)), 2))
    return data[:first] + data[second:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted(rng.sample(range(len(data)), 2))
    return data[:second] + data[first:]


def _reorder(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice([64, 1_000, 4_096])
    pieces = [data[n : n + size] for n in range(0, len(data), size)]
    rng.shuffle(pieces)
    return b"".join(pieces)


def _change_header(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(min(HEADER_BYTES, len(changed)))] = rng.randrange(256)
    return bytes(changed)


def _change_field(data: bytes, rng: random.Random) -> bytes:
    """A number in the header at its limits."""
    size = rng.choice([2, 4, 8])
    value = rng.choice([0, 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1])
    place = rng.randrange(4, HEADER_BYTES)
    return data[:place] + value.to_bytes(size, "big") + data[place + size :]


def _damage(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(20):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _follow_with_noise(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(20_000)


def _double(data: bytes, _rng: random.Random) -> bytes:
    return data + data


MUTATIONS: Final[dict[str, Callable[[bytes, random.Random], bytes]]] = {
    function.__name__.strip("_"): function
    for function in (
        _cut_start,
        _cut_end,
        _cut_within,
        _repeat,
        _reorder,
        _change_header,
        _change_field,
        _damage,
        _follow_with_noise,
        _double,
    )
}


def slices(data: bytes, rng: random.Random) -> list[bytes]:
    size = rng.choice([1_000_000, 4_000, 700, 64])
    return [data[n : n + size] for n in range(0, len(data), size)]


# ----------------------------------------------------------------------------------------- one file


async def hear(pool: DecoderPool, chunks: list[bytes]) -> tuple[int, list[AudioError], int]:
    """Bytes of PCM, errors, and bytes from raw PCM on, unless it was found to be noise."""
    audio = AudioInput(16_000, pool, HOUR_MS)
    heard, before_raw, errors = 0, 0, []
    try:
        async with asyncio.timeout(CASE_S_MAX):
            for chunk in chunks:
                try:
                    decoded = await audio.feed(chunk)
                    heard += len(decoded.tail) + len(decoded.pcm)
                except AudioError as error:
                    heard += len(error.pcm)
                    errors.append(error)
                    if error.was_noise:
                        before_raw = heard
                if not audio.took_raw:
                    before_raw = heard
            try:
                heard += len((await audio.finish()).tail)
            except AudioError as error:
                heard += len(error.pcm)
                errors.append(error)
    finally:
        await audio.close()
    return heard, errors, heard - before_raw if audio.took_raw else 0


async def fuzz(container: str, mutations: int, seed: int, pool: DecoderPool) -> Findings:
    """Mutated files of ``container``. The same seed makes the same files."""
    findings = Findings()
    speech = speak("4", "zh_mei", random.Random(2))
    original = encode(speech, container, 16_000, 1)
    for number in range(mutations):
        rng = random.Random(f"{seed} {container} {number}")
        name = rng.choice(list(MUTATIONS))
        data = MUTATIONS[name](original, rng)
        case = f"{container}, seed {seed}, file {number} ({name})"
        began_s = time.monotonic()
        try:
            heard, errors, raw_bytes = await hear(pool, slices(data, rng))
        except Exception as error:
            findings.problems.append(f"{case}: {error!r}")
            continue
        for refusal in errors:
            if refusal.code not in CODES or not str(refusal):
                findings.problems.append(f"{case}: {refusal.code}: {refusal}")
        if raw_bytes > RAW_BYTES_MAX and container not in HOLDS_PCM:
            findings.problems.append(f"{case}: taken for raw PCM")
        if time.monotonic() - began_s > CASE_S_MAX / 2:
            findings.problems.append(f"{case}: took {time.monotonic() - began_s:.0f} s")
        whole = heard >= 2 * len(speech) * 0.9
        findings.outcomes["whole" if whole else "a part" if heard else "refused"] += 1
    return findings


# ------------------------------------------------------------------------------------------ command


def main(
    mutations: Annotated[int, typer.Option(min=1, help="Files of each container.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same files.")] = 1,
    container: Annotated[str, typer.Option(help="Only this container.")] = "",
) -> None:
    """Decode damaged audio files, and check that each gives audio or a named refusal."""
    if container and container not in CONTAINERS:
        raise typer.BadParameter(f"one of {', '.join(CONTAINERS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    problems = 0
    for name in track([container] if container else CONTAINERS, console=console):
        found = asyncio.run(_with_pool(name, mutations, seed))
        console.print(f"{name}: {dict(found.outcomes)}", markup=False)
        for problem in found.problems:
            console.print(problem, style="red", markup=False, soft_wrap=True)
        problems += len(found.problems)
    console.print(f"{problems} problems")
    raise typer.Exit(1 if problems else 0)


async def _with_pool(container: str, mutations: int, seed: int) -> Findings:
    pool = DecoderPool(4)
    try:
        return await fuzz(container, mutations, seed, pool)
    finally:
        await pool.close()


if __name__ == "__main__":
    typer.run(main)
