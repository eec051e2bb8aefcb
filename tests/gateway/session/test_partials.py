from gateway.session.partials import PartialPacing
from gateway.session.segmenter import CutUtterance


def utterance(start_ms: int, end_ms: int) -> CutUtterance:
    return CutUtterance(
        start_ms=start_ms,
        end_ms=end_ms,
        last_chunk_index=0,
        pcm=b"",
        resume_chunk_index=0,
        resume_sample=0,
    )


def test_a_partial_is_asked_for_after_so_much_new_audio() -> None:
    pacing = PartialPacing(every_ms=600)
    assert [pacing.ask(utterance(100, end)) for end in (200, 699, 700, 1200, 1300)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_the_pause_before_an_utterance_does_not_count() -> None:
    pacing = PartialPacing(every_ms=600)
    pacing.segment_ended(1000)
    assert not pacing.ask(utterance(5000, 5500))
    assert pacing.ask(utterance(5000, 5600))


def test_what_is_told_never_goes_back() -> None:
    pacing = PartialPacing(every_ms=600)
    assert [pacing.tell(end) for end in (700, 600, 700, 900)] == [True, False, False, True]
    pacing.segment_ended(2000)
    assert not pacing.tell(1900)
