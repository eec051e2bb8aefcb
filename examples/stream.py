"""Stream a WAV file in real time, and print its text while it is spoken.

python examples/stream.py FILE [ws://HOST:PORT/ws/asr]

The file holds 16-bit mono PCM; transcribe.py takes any other. The access token, if the server
requires one, is taken from ASR_TOKEN.
"""

from __future__ import annotations

import asyncio
import os
import sys
import wave

import asr_client

CHUNK_S = 0.2


def read(path: str) -> tuple[bytes, int]:
    """Return the samples of a WAV file and their rate in Hz; ``ValueError`` if it has another
    form."""
    no_audio = f"{path}: no audio: the file is empty or cut off; record or copy it again"
    try:
        with wave.open(path) as file:
            bits, channels = 8 * file.getsampwidth(), file.getnchannels()
            if (bits, channels) != (16, 1):
                raise wave.Error(f"{bits} bits, {channels} channels")
            samples, rate_hz = file.readframes(file.getnframes()), file.getframerate()
    except EOFError as error:
        raise ValueError(no_audio) from error
    except wave.Error as error:
        raise ValueError(
            f"{path}: not a WAV file of 16-bit mono PCM ({error}); send it with transcribe.py, "
            "or convert it: ffmpeg -i FILE -ac 1 -c:a pcm_s16le NEW.wav"
        ) from error
    if not samples:
        raise ValueError(no_audio)
    return samples, rate_hz


async def speak(session: asr_client.Session, samples: bytes, rate_hz: int) -> None:
    """Send the samples as a microphone would."""
    chunk_bytes = 2 * round(rate_hz * CHUNK_S)
    for start in range(0, len(samples), chunk_bytes):
        await session.send(samples[start : start + chunk_bytes])
        await asyncio.sleep(CHUNK_S)
    await session.finish()


async def show(session: asr_client.Session) -> None:
    """Print the events. If the connection is lost, the session is resumed; each segment is received
    once."""
    async for event in session.events():
        match event:
            case asr_client.PartialResult():
                print("…", event.text)
            case asr_client.Segment():
                print(f"{event.start_ms / 1000:7.2f} s", event.text)
            case asr_client.FinalResult():
                print(event.text)
                print("stored" if event.stored else "not stored yet")
            case asr_client.Problem():
                print(event.code, event.message, file=sys.stderr)


async def main(path: str, url: str = "ws://127.0.0.1:8080/ws/asr") -> None:
    samples, rate_hz = read(path)
    async with asr_client.connect(
        url, sample_rate_hz=rate_hz, partials=True, token=os.environ.get("ASR_TOKEN")
    ) as session:
        await asyncio.gather(speak(session, samples, rate_hz), show(session))
    if session.problems:
        sys.exit(f"error: {path}: not all of it could be transcribed")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except asr_client.UnreachableError as error:
        sys.exit(f"error: {error}; start the server, or name another one")
    except (OSError, ValueError, asr_client.SessionError) as error:
        sys.exit(f"error: {error}")
