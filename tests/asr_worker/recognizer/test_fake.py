from __future__ import annotations

from asr_worker.recognizer.fake import FakeRecognizer, fake_text
from asr_worker.recognizer.protocol import Utterance


def test_a_text_is_a_hash_of_its_audio() -> None:
    recognizer = FakeRecognizer("fake:0ms", 0.0)
    first, second = recognizer.recognize([Utterance(pcm=b"\0\0"), Utterance(pcm=b"\1\0")])
    assert first.text == fake_text(b"\0\0")
    assert second.text == fake_text(b"\1\0")
    assert first.text != second.text
