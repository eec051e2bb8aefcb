"""LiveKit's Deepgram plugin, streaming: prints each final transcript as a line."""

import asyncio
import sys
import wave

import aiohttp
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import deepgram

ADDRESS, FILE = sys.argv[1:]
FRAME_S = 0.1


async def main() -> None:
    with wave.open(FILE) as audio:
        rate, pcm = audio.getframerate(), audio.readframes(audio.getnframes())
    async with aiohttp.ClientSession() as session:
        recogniser = deepgram.STT(
            api_key="any", base_url=f"http://{ADDRESS}/v1/listen", http_session=session
        )
        stream = recogniser.stream()

        async def speak() -> None:
            samples = int(rate * FRAME_S)
            for place in range(0, len(pcm), 2 * samples):
                part = pcm[place : place + 2 * samples]
                stream.push_frame(rtc.AudioFrame(part, rate, 1, len(part) // 2))
                await asyncio.sleep(FRAME_S / 4)
            stream.end_input()

        speaking = asyncio.create_task(speak())
        async for event in stream:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                print(event.alternatives[0].text, flush=True)
        await speaking


asyncio.run(main())
