import inspect
import random
import tracemalloc

import pytest

from gateway.audio.timeline import FRAME_SAMPLES, PIECE_BYTES_MAX, Timeline, samples_to_ms


def pcm(samples: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(samples * 2)


def kept_bytes(timeline: Timeline) -> int:
    return sum(map(len, timeline._pieces))


def test_frames_are_the_same_however_audio_arrives() -> None:
    audio = pcm(FRAME_SAMPLES * 7 + 100)
    timeline, frames, rng = Timeline(), b"", random.Random(1)
    place = 0
    while place < len(audio):
        step = rng.randrange(1, 700) * 2
        timeline.append(audio[place : place + step])
        frames += timeline.take_frames()
        place += step
    assert frames == audio[: FRAME_SAMPLES * 7 * 2]
    assert timeline.take_last_frame() == audio[FRAME_SAMPLES * 14 :].ljust(FRAME_SAMPLES * 2, b"\0")
    assert timeline.take_last_frame() == b""


def test_cut_after_forgetting_gives_the_same_samples() -> None:
    audio = pcm(5000)
    timeline = Timeline()
    for place in range(0, len(audio), 2500):
        timeline.append(audio[place : place + 2500])
    timeline.take_frames()
    timeline.forget_before(2000)
    # Less its first piece; of the second a part is needed.
    assert kept_bytes(timeline) == len(audio) - 2500
    assert timeline.total_samples == 5000
    assert timeline.cut(2500, 4000) == audio[5000:8000]
    with pytest.raises(AssertionError):
        timeline.cut(1999, 3000)


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_is_the_audio_whatever_its_pieces_and_what_is_forgotten(seed: int) -> None:
    audio, rng, timeline = pcm(200_000), random.Random(seed), Timeline()
    place = forgotten = 0
    while place < len(audio):
        # From a sample to several of the largest pieces.
        step = round(2 ** rng.uniform(0, 17)) * 2
        timeline.append(audio[place : place + step])
        place = min(place + step, len(audio))
        assert timeline.total_samples == place // 2
        timeline.take_frames()
        forgotten = max(forgotten, rng.randrange(place // 2 + 1) - 20_000)
        timeline.forget_before(forgotten)
        for _ in range(20):
            start, end = sorted(rng.choices(range(forgotten, place // 2 + 1), k=2))
            assert timeline.cut(start, end) == audio[2 * start : 2 * end]
        assert kept_bytes(timeline) < place - 2 * forgotten + PIECE_BYTES_MAX


def test_audio_in_tiny_pieces_takes_little_more_room_than_it_is_long() -> None:
    audio, timeline = pcm(20_000), Timeline()
    tracemalloc.start()
    for place in range(0, len(audio), 2):
        timeline.append(audio[place : place + 2])
    room, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert timeline.cut(0, 20_000) == audio
    assert len(audio) <= room < 1.2 * len(audio)


def test_frames_not_yet_taken_are_never_forgotten() -> None:
    timeline = Timeline()
    timeline.append(pcm(1000))
    timeline.forget_before(1000)
    assert timeline.take_frames() == pcm(1000)[: FRAME_SAMPLES * 2]


def test_a_segment_belongs_to_the_chunk_it_ends_in() -> None:
    timeline = Timeline()
    for index in range(4):
        timeline.append(pcm(1000, index))
        timeline.end_chunk(index)
    assert [timeline.chunk_index_at(s) for s in (1, 1000, 1001, 3999, 4000)] == [0, 0, 1, 3, 3]
    timeline.take_frames()
    timeline.forget_before(2000)
    assert [timeline.chunk_index_at(s) for s in (2001, 3000, 4000)] == [2, 2, 3]


def test_chunks_without_audio_take_no_room() -> None:
    timeline = Timeline()
    timeline.append(pcm(1000))
    tracemalloc.start()
    for index in range(20_000):
        timeline.end_chunk(index)
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    # Threads that other tests have left allocate, too.
    own = snapshot.filter_traces([tracemalloc.Filter(True, inspect.getfile(Timeline))])
    assert sum(each.size for each in own.traces) < 1_000
    timeline.append(pcm(100))
    assert [timeline.chunk_index_at(s) for s in (999, 1000, 1001, 1100)] == [0, 0, 19_999, 19_999]
    timeline.end_chunk(20_000)
    assert [timeline.chunk_index_at(s) for s in (1000, 1001, 1100)] == [0, 20_000, 20_000]


def test_milliseconds_round_down() -> None:
    assert [samples_to_ms(s) for s in (0, 15, 16, 16000)] == [0, 0, 1, 1000]
