"""A speech service of pipecat in a pipeline, ``deepgram`` or ``openai`` (its Realtime API): prints
each final transcript as a line."""

import asyncio
import sys
import wave

from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, TranscriptionFrame
from pipecat.frames.frames import VADUserStoppedSpeakingFrame as Stopped
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

SERVICE, ADDRESS, FILE = sys.argv[1:]
FRAME_S = 0.1
WAIT_S = 5.0
"""For the connection, and at the end for the last text."""


def service_of(name: str, rate: int) -> FrameProcessor:
    # Each service imports a package that the other does not need.
    if name == "deepgram":
        from pipecat.services.deepgram.stt import DeepgramSTTService

        return DeepgramSTTService(api_key="any", base_url=f"ws://{ADDRESS}", sample_rate=rate)
    from pipecat.services.openai.stt import OpenAIRealtimeSTTService

    return OpenAIRealtimeSTTService(api_key="any", base_url=f"ws://{ADDRESS}/v1/realtime")


class Show(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            print(frame.text, flush=True)
        await self.push_frame(frame, direction)


async def main() -> None:
    with wave.open(FILE) as audio:
        rate, pcm = audio.getframerate(), audio.readframes(audio.getnframes())
    task = PipelineTask(
        Pipeline([service_of(SERVICE, rate), Show()]),
        params=PipelineParams(audio_in_sample_rate=rate),
    )

    async def speak() -> None:
        await asyncio.sleep(WAIT_S)
        step = 2 * int(rate * FRAME_S)
        for place in range(0, len(pcm), step):
            part = pcm[place : place + step]
            await task.queue_frame(InputAudioRawFrame(part, rate, 1))
            await asyncio.sleep(FRAME_S / 4)
        await task.queue_frame(Stopped())
        await asyncio.sleep(WAIT_S)
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak())


asyncio.run(main())
