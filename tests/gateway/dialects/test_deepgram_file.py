from __future__ import annotations

from datetime import UTC, datetime

from gateway.dialects.deepgram_file import DeepgramFile
from gateway.session import events as e
from tests.gateway.dialects.test_deepgram import segment


def test_a_file_is_answered_with_the_words_of_all_utterances() -> None:
    talk = DeepgramFile(
        {"interim_results": ["true"], "utterances": ["true"]}, "s", datetime.now(UTC)
    )
    start, _chunk = talk.parse(b"RIFF")
    assert isinstance(start, e.Start) and start.encoded and not start.partials
    assert isinstance(talk.parse(b"")[-1], e.Finish)
    segments = [segment(0, "nine two", confidence=0.5), segment(1, "five", start_ms=4_000)]
    text = "nine two five"
    end = e.Finished(session_id="s", text=text, duration_ms=7_000, chunk_count=2, stored=True)
    body = talk.body(segments, end)
    assert body["metadata"]["duration"] == 7.0 and body["metadata"]["warnings"]
    (channel,) = body["results"]["channels"]
    (alternative,) = channel["alternatives"]
    assert alternative["transcript"] == text
    assert [word["word"] for word in alternative["words"]] == ["nine", "two", "five"]
    assert alternative["words"][2]["start"] == 4.0
