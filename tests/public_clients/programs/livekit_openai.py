"""LiveKit's OpenAI plugin with ``use_realtime``: prints each final transcript as a line."""

import asyncio
import sys
import wave

from livekit import rtc
from livekit.agents import stt
from livekit.agents.utils import http_context
from livekit.plugins import openai

ADDRESS, FILE = sys.argv[1:]
FRAME_S = 0.05
LAST_S = 8.0


async def main() -> None:
    with wave.open(FILE) as audio:
        rate, pcm = audio.getframerate(), audio.readframes(audio.getnframes())
    pcm += bytes(2 * rate)
    async with http_context.open():
        recogniser = openai.STT(base_url=f"http://{ADDRESS}/v1", api_key="any", use_realtime=True)
        stream = recogniser.stream()

        async def show() -> None:
            async for event in stream:
                if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                    print(event.alternatives[0].text, flush=True)

        showing = asyncio.create_task(show())
        samples = int(rate * FRAME_S)
        for place in range(0, len(pcm), 2 * samples):
            part = pcm[place : place + 2 * samples]
            stream.push_frame(rtc.AudioFrame(part, rate, 1, len(part) // 2))
            await asyncio.sleep(FRAME_S / 2)
        await asyncio.sleep(LAST_S)
        await stream.aclose()
        await showing


asyncio.run(main())
