"""The plan of a run: checked options, sessions with their start times, a share for each process."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_client.addresses import websocket_url
from tools.lab.loadtest.speech import DigitSpeech, Speech, recordings
from tools.lab.loadtest.user import Behaviour

Length = Literal["short", "medium", "long"]
LENGTH_S = {"short": 60.0, "medium": 30 * 60.0, "long": 60 * 60.0}
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds(text: str) -> float:
    """Parse ``90``, ``90s``, ``1m30s`` or ``1h``; return seconds.

    Raises:
        ValueError: for anything else.
    """
    match = DURATION.fullmatch(text.strip())
    if match is None or not text.strip():
        raise ValueError(f"not a duration such as 60s, 1m30s or 1h: {text!r}")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + rest


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. With ``rate_per_s`` 0, all sessions start within ``ramp_s``. Otherwise they arrive
    as a Poisson process of that rate, whether or not the system keeps up (open loop)."""

    behaviour: Behaviour
    sessions: int
    duration_s: float
    chunk_ms: int
    ramp_s: float
    rate_per_s: float
    seed: int
    files: Path | None = None

    def beginnings_s(self) -> list[float]:
        """Start time of each session, from the start of the run."""
        if self.rate_per_s:
            rng = random.Random(self.seed)
            times_s, at_s = [], 0.0
            for _ in range(self.sessions):
                at_s += rng.expovariate(self.rate_per_s)
                times_s.append(at_s)
            return times_s
        return [self.ramp_s * number / self.sessions for number in range(self.sessions)]

    def share(self, process: int, processes: int) -> list[tuple[str, float, Callable[[], Speech]]]:
        """Sessions of one generator process: id, start time, and a factory of its speech."""
        found = recordings(self.files, self.chunk_ms) if self.files else []

        def maker(number: int) -> Callable[[], Speech]:
            if found:
                return lambda: found[number % len(found)]
            return lambda: DigitSpeech(
                self.seed * 1_000_003 + number,
                round(self.duration_s * 1000),
                self.chunk_ms,
                chunks_are_utterances=self.behaviour.mode == "chunk",
            )

        return [
            (str(uuid.uuid4()), begin_s, maker(number))
            for number, begin_s in enumerate(self.beginnings_s())
            if number % processes == process
        ]


def gateway_url(address: str) -> str:
    """Return the URL of the native protocol at ``address``, in any form that the client takes.

    Raises:
        ValueError: As ``websocket_url``, and for an address with TLS.
    """
    url = websocket_url(address)
    if not url.startswith("ws://"):
        raise ValueError(f"the load test has no TLS, and cannot reach {address!r}")
    return url
