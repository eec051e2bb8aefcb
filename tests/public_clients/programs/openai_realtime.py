"""OpenAI's Python package, a Realtime session with speech detection: prints each transcript as a
line."""

import asyncio
import base64
import sys
import wave

import openai

ADDRESS, FILE = sys.argv[1:]
FRAME_S = 0.1
SILENCE_S = 1.0
LAST_S = 8.0
"""The session ends after this time without an event."""


async def main() -> None:
    with wave.open(FILE) as audio:
        rate, pcm = audio.getframerate(), audio.readframes(audio.getnframes())
    pcm += bytes(2 * int(rate * SILENCE_S))
    client = openai.AsyncOpenAI(api_key="any", base_url=f"http://{ADDRESS}/v1")
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        source = {
            "format": {"type": "audio/pcm", "rate": rate},
            "transcription": {"model": "gpt-4o-transcribe"},
            "turn_detection": {"type": "server_vad"},
        }
        session = {"type": "transcription", "audio": {"input": source}}
        await connection.session.update(session=session)
        samples = int(rate * FRAME_S)
        for place in range(0, len(pcm), 2 * samples):
            part = base64.b64encode(pcm[place : place + 2 * samples]).decode()
            await connection.input_audio_buffer.append(audio=part)
        try:
            while True:
                event = await asyncio.wait_for(connection.recv(), LAST_S)
                if event.type == "conversation.item.input_audio_transcription.completed":
                    print(event.transcript, flush=True)
        except TimeoutError:
            return


asyncio.run(main())
