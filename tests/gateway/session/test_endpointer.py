"""Utterance boundaries from speech probabilities."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.timeline import FRAME_SAMPLES
from gateway.session.endpointer import Endpointer, EndpointerConfig, Endpointing, Utterance

CONFIG = EndpointerConfig(
    start_threshold=0.5,
    end_threshold=0.3,
    min_speech_ms=64,
    endpoint_silence_ms=320,
    pre_roll_ms=96,
    post_roll_ms=128,
    utterance_ms_max=4_000,
)
ROLL = 96 * 16
PROBABILITIES = st.lists(
    # Runs, because independent frames would hardly ever hold an endpoint's silence.
    st.tuples(st.sampled_from([0.0, 0.05, 0.29, 0.3, 0.49, 0.5, 0.9]), st.integers(1, 60)),
    max_size=12,
).map(lambda runs: [p for probability, count in runs for p in [probability] * count])


def frames(*runs: tuple[float, int]) -> list[float]:
    return [p for probability, count in runs for p in [probability] * count]


def test_speech_between_silences_is_one_utterance_with_pre_and_post_roll() -> None:
    endpointer = Endpointer(CONFIG)
    (utterance,) = endpointer.push(frames((0, 20), (0.9, 30), (0, 20)))
    assert utterance == Utterance(20 * 512 - ROLL, 50 * 512 + 128 * 16)
    assert endpointer.speech_start_sample is None


def test_the_open_utterance_is_reported_while_it_lasts() -> None:
    endpointer = Endpointer(CONFIG)
    endpointer.push(frames((0, 20)))
    assert endpointer.speech_start_sample is None
    endpointer.push(frames((0.9, 1)))
    assert endpointer.speech_start_sample is not None
    assert endpointer.speech_start_sample == 20 * 512 - ROLL == endpointer.safe_to_forget_sample


def test_hysteresis_a_doubtful_frame_continues_speech_but_does_not_start_it() -> None:
    assert Endpointer(CONFIG).push(frames((0.4, 50), (0, 50))) == []
    (utterance,) = Endpointer(CONFIG).push(frames((0.6, 1), (0.4, 49), (0, 50)))
    assert utterance.end_sample == 50 * 512 + 128 * 16


def test_a_click_is_not_an_utterance_but_becomes_pre_roll_of_speech_soon_after() -> None:
    endpointer = Endpointer(CONFIG)
    assert endpointer.push(frames((0, 5), (0.9, 1), (0, 10))) == []
    (utterance,) = endpointer.push(frames((0.9, 5), (0, 20)))
    assert utterance.start_sample == 16 * 512 - ROLL


def test_consecutive_utterances_do_not_share_audio_though_their_rolls_would_overlap() -> None:
    config = EndpointerConfig(
        start_threshold=0.5, end_threshold=0.3, endpoint_silence_ms=320, pre_roll_ms=3_000
    )
    first, second = Endpointer(config).push(frames((0.9, 9), (0, 12), (0.9, 9), (0, 12)))
    assert first.end_sample == second.start_sample


def test_the_limit_cuts_inside_the_most_silent_frame_of_the_last_seconds() -> None:
    endpointer = Endpointer(CONFIG)
    speech = frames((0.9, 90), (0.35, 1), (0.9, 60))
    (utterance,) = endpointer.push(speech)
    assert utterance == Utterance(0, 90 * 512 + 256, continues=True)
    assert endpointer.speech_start_sample == 90 * 512 + 256
    (rest,) = endpointer.push(frames((0, 20)))
    assert rest == Utterance(90 * 512 + 256, 151 * 512 + 128 * 16)


def test_the_rest_after_a_limit_counts_with_any_amount_of_speech() -> None:
    endpointer = Endpointer(CONFIG)
    # The last frame that fits is 125; the quietest before it is 123, so one frame of speech is
    # behind the cut, and silence follows.
    first, rest = endpointer.push(frames((0.9, 122), (0.1, 1), (0.9, 1), (0, 20)))
    assert rest.start_sample == first.end_sample == 122 * 512 + 256


def test_speech_is_certain_once_it_is_no_click() -> None:
    endpointer = Endpointer(CONFIG)
    endpointer.push(frames((0, 20), (0.9, 1)))
    assert endpointer.certain_start is None
    endpointer.push(frames((0.9, 1)))
    assert endpointer.speech_start_sample == 20 * 512 - ROLL
    assert endpointer.certain_start == (20 * 512 - ROLL, 20 * 512)


def test_a_client_chooses_what_it_names() -> None:
    assert CONFIG.chosen(Endpointing()) == CONFIG
    chosen = CONFIG.chosen(Endpointing(silence_ms=200, pre_roll_ms=0, start_threshold=0.25))
    assert (chosen.endpoint_silence_ms, chosen.pre_roll_ms) == (200, 0)
    assert chosen.start_threshold == 0.25
    assert chosen.end_threshold == pytest.approx(0.15)


def test_the_choice_of_a_client_has_limits() -> None:
    least = Endpointing(silence_ms=-1, pre_roll_ms=-1, start_threshold=0.0).within_limits()
    assert least == Endpointing(silence_ms=100, pre_roll_ms=0, start_threshold=0.01)
    most = Endpointing(silence_ms=1 << 60, pre_roll_ms=1 << 60, start_threshold=7.0)
    assert most.within_limits() == Endpointing(
        silence_ms=3_000, pre_roll_ms=2_000, start_threshold=1.0
    )
    EndpointerConfig(endpoint_silence_ms=600).chosen(most)


def test_a_boundary_closes_the_utterance_exactly_there() -> None:
    endpointer = Endpointer(CONFIG)
    endpointer.push(frames((0.9, 10)))
    assert endpointer.boundary(10 * 512 - 100) == [Utterance(0, 10 * 512 - 100)]
    (utterance,) = endpointer.push(frames((0.9, 10), (0, 20)))
    assert utterance.start_sample == 10 * 512 - 100


def test_a_boundary_in_silence_only_limits_the_next_pre_roll() -> None:
    endpointer = Endpointer(CONFIG)
    endpointer.push(frames((0, 10)))
    assert endpointer.boundary(10 * 512 + 7) == []
    assert endpointer.safe_to_forget_sample == 10 * 512 + 7
    (utterance,) = endpointer.push(frames((0.9, 10), (0, 20)))
    assert utterance.start_sample == 10 * 512 + 7


def test_a_known_end_leaves_half_of_the_silence_to_what_follows() -> None:
    endpointer = Endpointer(CONFIG)
    endpointer.push(frames((0.9, 10), (0, 4)))
    assert endpointer.end_in_silence() == [Utterance(0, 12 * 512)]
    assert endpointer.end_in_silence() == []
    (utterance,) = endpointer.push(frames((0.9, 10), (0, 20)))
    assert utterance.start_sample == 12 * 512


def test_trailing_silence_begins_after_the_last_speech_frame() -> None:
    endpointer = Endpointer(CONFIG)
    assert endpointer.trailing_silence_ms == 0
    endpointer.push(frames((0.9, 3), (0.1, 4)))
    assert endpointer.trailing_silence_ms == 4 * 32
    endpointer.push(frames((0.1, 20)))
    assert endpointer.trailing_silence_ms == 24 * 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"end_threshold": 0.6},
        {"end_threshold": 0.0},
        {"pre_roll_ms": -1},
        {"endpoint_silence_ms": 32},
        {"utterance_ms_max": 500},
    ],
)
def test_contradictory_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"threshold|negative|endpoint_silence|utterance"):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


@given(probabilities=PROBABILITIES, sizes=st.lists(st.integers(0, 40), max_size=40))
def test_grouping_into_calls_makes_no_difference(
    probabilities: list[float], sizes: list[int]
) -> None:
    at_once = Endpointer(CONFIG)
    expected = at_once.push(probabilities)
    in_groups = Endpointer(CONFIG)
    got = []
    place = 0
    for size in [*sizes, len(probabilities)]:
        got += in_groups.push(probabilities[place : place + size])
        place += size
    assert got == expected
    total = len(probabilities) * FRAME_SAMPLES
    assert in_groups.boundary(total) == at_once.boundary(total)
    assert in_groups.safe_to_forget_sample == at_once.safe_to_forget_sample


@given(probabilities=PROBABILITIES, padding=st.integers(0, FRAME_SAMPLES - 1))
def test_no_speech_is_lost_or_repeated_and_no_utterance_exceeds_the_limit(
    probabilities: list[float], padding: int
) -> None:
    endpointer = Endpointer(CONFIG)
    utterances: list[Utterance] = []
    for probability in probabilities:
        safe = endpointer.safe_to_forget_sample
        new = endpointer.push([probability])
        assert all(utterance.start_sample >= safe for utterance in new)
        assert endpointer.safe_to_forget_sample >= safe
        utterances += new
    total = max(0, len(probabilities) * FRAME_SAMPLES - padding)
    utterances += endpointer.boundary(total)
    previous_end = 0
    for utterance in utterances:
        assert previous_end <= utterance.start_sample < utterance.end_sample <= total
        assert utterance.end_sample - utterance.start_sample <= 4_000 * 16
        previous_end = utterance.end_sample
    for start, end in _sure_speech(probabilities):
        covered = sum(
            max(0, min(end, u.end_sample) - max(start, u.start_sample)) for u in utterances
        )
        assert covered == min(end, total) - start


def _sure_speech(probabilities: list[float]) -> list[tuple[int, int]]:
    """Runs of at least ``min_speech_ms`` at the start threshold, in samples."""
    runs = []
    begin = None
    for n, probability in enumerate([*probabilities, 0.0]):
        if probability >= CONFIG.start_threshold:
            begin = n if begin is None else begin
        elif begin is not None:
            if n - begin >= 2:
                runs.append((begin * FRAME_SAMPLES, n * FRAME_SAMPLES))
            begin = None
    return runs
