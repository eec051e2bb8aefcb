"""Messages of the clients, and the least of several costs."""

from __future__ import annotations

import base64
import json

from tools.lab.bench.chunks import CHUNK_MS, Cost, encoded_chunks, message_of


def test_a_message_is_a_chunk_of_speech() -> None:
    audio = encoded_chunks()
    message = json.loads(message_of("s", len(audio), audio))
    assert (message["action"], message["session_id"]) == ("chunk", "s")
    assert message["chunk_index"] == len(audio) and message["audio_data"] == audio[0]
    assert len(base64.b64decode(message["audio_data"])) == 32 * CHUNK_MS


def test_the_least_of_each_cost_counts() -> None:
    assert Cost(1, 20, 3).least(Cost(10, 2, 30)) == Cost(1, 2, 3)
