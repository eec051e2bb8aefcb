"""Deepgram's Python SDK (v5 and later), streaming: prints each final transcript as a line."""

import asyncio
import sys
import wave

from deepgram import AsyncDeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

ADDRESS, FILE = sys.argv[1:]
FRAME_S = 0.1


async def main() -> None:
    local = DeepgramClientEnvironment(
        base=f"http://{ADDRESS}",
        production=f"ws://{ADDRESS}",
        agent=f"ws://{ADDRESS}",
        agent_rest=f"http://{ADDRESS}",
    )
    client = AsyncDeepgramClient(api_key="any", environment=local)
    with wave.open(FILE) as audio:
        rate, pcm = audio.getframerate(), audio.readframes(audio.getnframes())
    async with client.listen.v1.connect(
        model="nova-3", encoding="linear16", sample_rate=str(rate), interim_results="true"
    ) as connection:

        def show(message: object) -> None:
            if getattr(message, "type", "") == "Results" and message.is_final:
                print(message.channel.alternatives[0].transcript, flush=True)

        connection.on(EventType.MESSAGE, show)
        listening = asyncio.create_task(connection.start_listening())
        step = 2 * int(rate * FRAME_S)
        for place in range(0, len(pcm), step):
            await connection.send_media(pcm[place : place + step])
            await asyncio.sleep(FRAME_S / 4)
        await connection.send_close_stream()
        await asyncio.wait_for(listening, 30)


asyncio.run(main())
