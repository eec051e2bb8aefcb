"""Messages of the clients, and the ratios of several rounds."""

from __future__ import annotations

import base64
import json

from tools.lab.bench.chunks import CHUNK_MS, Cost, Round, encoded_chunks, figures, message_of


def test_a_message_is_a_chunk_of_speech() -> None:
    audio = encoded_chunks()
    message = json.loads(message_of("s", len(audio), audio))
    assert (message["action"], message["session_id"]) == ("chunk", "s")
    assert message["chunk_index"] == len(audio) and message["audio_data"] == audio[0]
    assert len(base64.b64decode(message["audio_data"])) == 32 * CHUNK_MS


def measured(speed: float, other: Cost | None = None) -> Round:
    """A round on a machine that is ``speed`` times as fast as another."""

    def at_speed(cost: Cost) -> Cost:
        return Cost(cost.alone_us / speed, cost.alone_ms / speed, cost.crowd_us / speed)

    return Round(
        echo=at_speed(Cost(100, 0.2, 60)),
        ours=at_speed(Cost(500, 0.5, 150)),
        detection_us=200 / speed,
        crowd_detection_us=40 / speed,
        other=None if other is None else at_speed(other),
    )


def test_the_speed_of_the_machine_does_not_change_the_ratios() -> None:
    base = Cost(1_200, 1.0, 200)
    answer, alone, crowd = figures([measured(speed, base) for speed in (1.0, 0.5, 2.0)])
    assert (answer.value, alone.value, crowd.value) == (0.5, 300, 1.5)
    assert alone.at_most == 0.5 * 1_000 and alone.kept
    assert crowd.kept


def test_without_another_checkout_a_chunk_alone_has_no_promise() -> None:
    _, alone, crowd = figures([measured(1.0)])
    assert alone.at_most is None and crowd.at_most == 1.6
