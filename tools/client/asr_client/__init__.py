"""Client of the speech-recognition server ``asr-pipeline``.

Transcribe a file::

    import asr_client

    print(asr_client.transcribe("speech.wav").text)

Stream audio and receive segments while it is spoken::

    async with asr_client.connect("ws://127.0.0.1:8080/ws/asr") as session:
        await session.send(pcm)
        await session.finish()
        async for segment in session:
            print(segment.start_ms, segment.text)

``asr_client.protocol`` is the core without I/O, for programs with a transport of their own.
"""

from asr_client.client import Session, connect
from asr_client.events import (
    Event,
    FinalResult,
    PartialResult,
    Problem,
    Segment,
    Started,
)
from asr_client.exceptions import (
    RefusedError,
    ServerBusyError,
    SessionError,
    SessionLostError,
    UnreachableError,
)
from asr_client.files import Transcript, transcribe

__all__ = [
    "Event",
    "FinalResult",
    "PartialResult",
    "Problem",
    "RefusedError",
    "Segment",
    "ServerBusyError",
    "Session",
    "SessionError",
    "SessionLostError",
    "Started",
    "Transcript",
    "UnreachableError",
    "connect",
    "transcribe",
]
