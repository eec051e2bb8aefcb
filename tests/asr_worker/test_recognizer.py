from __future__ import annotations

from asr_worker.recognizer import Utterance, build, fake_text
from asr_worker.settings import WorkerSettings


def test_the_fake_answers_with_a_hash_of_each_audio() -> None:
    recognizer = build(WorkerSettings(asr_model="fake:0ms"))
    first, second = recognizer.recognize([Utterance(pcm=b"\0\0"), Utterance(pcm=b"\1\0")])
    assert first.text == fake_text(b"\0\0")
    assert second.text == fake_text(b"\1\0")
    assert first.text != second.text
    assert recognizer.model == "fake:0ms"
