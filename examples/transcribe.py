import asyncio
import sys

import asr_client


async def main(path: str, url: str = "ws://127.0.0.1:8080/ws/asr") -> None:
    async with asr_client.connect(url) as session:
        with open(path, "rb") as file:  # of any audio format, or raw PCM
            while chunk := file.read(16_000):
                await session.send(chunk)
        await session.finish()
        async for segment in session:
            print(segment.start_ms, segment.end_ms, segment.text)


asyncio.run(main(*sys.argv[1:]))
