"""A session with one utterance that kills every worker that gets it; other sessions must not be
affected."""

from __future__ import annotations

import asyncio
import random

import numpy as np

import asr_client as c
from tools.lab.chaos.sabotage import POISON
from tools.lab.digit_speech import SAMPLE_RATE_HZ, expected_text, random_digits, speak

VOICE = "en_slt"
PIECE_BYTES = 6_400
PAUSE_MS = 1_200
FINAL_TIMEOUT_S = 90.0


def poisoned_speech(rng: random.Random) -> tuple[list[str], bytes]:
    """Three utterances, the second poisoned: texts of the first and the last, and the PCM."""
    digits = [random_digits(rng, 4) for _ in range(3)]
    spoken = [speak(text, VOICE, rng, lead_ms=PAUSE_MS // 2, tail_ms=PAUSE_MS) for text in digits]
    middle = spoken[1].tobytes()
    place = len(middle) // 3 // 2 * 2
    poisoned = middle[:place] + POISON + middle[place + len(POISON) :]
    spoken[1] = np.frombuffer(poisoned, dtype=np.int16)
    texts = [expected_text(digits[0], VOICE), expected_text(digits[2], VOICE)]
    return texts, np.concatenate(spoken).tobytes()


async def poisoned_session(url: str, seed: int) -> list[str]:
    """Send it in real time; return the problems of the answers."""
    texts, pcm = poisoned_speech(random.Random(seed))
    received: list[str] = []
    async with c.connect(url) as session:

        async def send() -> None:
            for start in range(0, len(pcm), PIECE_BYTES):
                await session.send(pcm[start : start + PIECE_BYTES])
                await asyncio.sleep(PIECE_BYTES / 2 / SAMPLE_RATE_HZ)
            await session.finish()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(FINAL_TIMEOUT_S):
            async for event in session.events():
                if isinstance(event, c.Segment):
                    received.append(event.text)
                elif isinstance(event, c.Problem):
                    received.append(f"error {event.code}")
        await sending
    expected = [texts[0], "error chunk_failed", texts[1]]
    return (
        []
        if received == expected
        else [f"poisoned session: expected {expected}, received {received}"]
    )
