"""Deepgram's SDK, a file: prints its transcript."""

from __future__ import annotations

import sys
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment


def main(address: str, file: str) -> None:
    base, production = f"http://{address}", f"ws://{address}"
    environment = DeepgramClientEnvironment(
        base=base, production=production, agent=production, agent_rest=base
    )
    client = DeepgramClient(api_key="any", environment=environment)
    answer = client.listen.v1.media.transcribe_file(
        request=Path(file).read_bytes(), model="nova-3", punctuate=True
    )
    print(answer.results.channels[0].alternatives[0].transcript)


if __name__ == "__main__":
    main(*sys.argv[1:])
