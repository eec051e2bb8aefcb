"""Voices are points on a sphere, and utterances are noisy copies of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.session import speakers as module
from gateway.session.speakers import NEW_SPEAKER_MS_MIN, SPEAKERS_MAX, UNKNOWN, Speakers

DIMENSION = 64
SIMILARITY = 0.4
LONG_MS = 3_000

Vector = npt.NDArray[np.float64]


def unit(vector: Vector) -> Vector:
    return vector / np.linalg.norm(vector)


def voices(count: int, seed: int = 0) -> list[Vector]:
    random = np.random.default_rng(seed)
    orthogonal, _ = np.linalg.qr(random.normal(size=(DIMENSION, DIMENSION)))
    return list(orthogonal[:count])


def heard(voice: Vector, noise: float, random: np.random.Generator) -> bytes:
    """An utterance of ``voice``. The similarity of two is about 1 / (1 + noise ** 2)."""
    direction = unit(random.normal(size=DIMENSION))
    return unit(voice + noise * direction).astype("<f4").tobytes()


def label_all(
    turns: list[int],
    *,
    noise: float = 0.7,
    seed: int = 0,
    duration_ms: int = LONG_MS,
    of: list[Vector] | None = None,
) -> Speakers:
    random = np.random.default_rng(seed + 1)
    of = of or voices(max(turns) + 1, seed)
    speakers = Speakers(SIMILARITY)
    for turn in turns:
        assert speakers.add(heard(of[turn], noise, random), duration_ms) is None
    return speakers


def same_partition(labels: list[int], truth: list[int]) -> bool:
    pairs = set(zip(labels, truth, strict=True))
    return len(pairs) == len(set(labels)) == len(set(truth))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 99))
def test_noisy_voices_are_distinguished_at_once_and_counted_in_order(
    turns: list[int], seed: int
) -> None:
    speakers = label_all(turns, seed=seed)
    first_heard = list(dict.fromkeys(turns))
    assert list(speakers.labels) == [1 + first_heard.index(turn) for turn in turns]
    assert speakers.recluster() == []


def test_the_end_merges_a_speaker_that_was_opened_twice() -> None:
    """The first utterances of a voice differ more than the threshold allows, and those between
    connect them."""
    voice, other, side = voices(3)
    far = [unit(voice + 0.9 * side), unit(voice - 0.9 * side)]
    near = unit(voice + 0.1 * side)
    turns = [far[0], far[1], other, near, near, near, near, other]
    speakers = Speakers(SIMILARITY)
    for vector in turns:
        speakers.add(vector.astype("<f4").tobytes(), LONG_MS)
    assert speakers.labels[0] != speakers.labels[1]
    changed = speakers.recluster()
    assert same_partition(list(speakers.labels), [0, 0, 1, 0, 0, 0, 0, 1])
    # Most of its speech has the first label.
    assert speakers.labels[0] == 1
    assert changed == [1]


@settings(max_examples=25, deadline=None)
@given(st.permutations([0, 1, 2] * 6), st.integers(0, 20))
def test_the_end_does_not_depend_on_the_order(order: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    of = voices(3, seed)
    # Noise at which the labels while the session runs do depend on the order.
    utterances = {
        number: (turn, heard(of[turn], 1.2, random)) for number, turn in enumerate([0, 1, 2] * 6)
    }
    partitions = []
    for numbers in (list(utterances), np.random.default_rng(len(order)).permutation(18).tolist()):
        speakers = Speakers(SIMILARITY)
        for number in numbers:
            speakers.add(utterances[number][1], LONG_MS)
        speakers.recluster()
        of_label: dict[int, set[int]] = {}
        for number, label in zip(numbers, speakers.labels, strict=True):
            of_label.setdefault(label, set()).add(number)
        partitions.append({frozenset(group) for group in of_label.values()})
    assert partitions[0] == partitions[1]


def test_two_similar_voices_are_two_speakers_and_two_more_similar_ones_one() -> None:
    one, direction = voices(2)
    for similarity, count in ((0.2, 2), (0.8, 1)):
        other = similarity * one + np.sqrt(1 - similarity**2) * direction
        speakers = label_all([0, 1] * 10, noise=0.3, of=[one, other])
        speakers.recluster()
        assert len(set(speakers.labels)) == count


def test_a_voice_that_drifts_stays_one_speaker() -> None:
    one, direction, other = voices(3)
    random = np.random.default_rng(0)
    speakers = Speakers(SIMILARITY)
    truth = []
    for step in range(40):
        angle = step / 40 * np.pi / 3
        drifting = np.cos(angle) * one + np.sin(angle) * direction
        for turn, voice in enumerate((drifting, other)):
            speakers.add(heard(voice, 0.4, random), LONG_MS)
            truth.append(turn)
    assert same_partition(list(speakers.labels), truth)
    assert speakers.recluster() == []


def test_short_utterances_join_and_open_no_speaker() -> None:
    of = voices(2)
    random = np.random.default_rng(0)
    speakers = Speakers(SIMILARITY)
    speakers.add(heard(of[0], 0.5, random), LONG_MS)
    speakers.add(heard(of[1], 0.5, random), LONG_MS)
    for _ in range(50):  # Nearly noise only.
        speakers.add(heard(of[0], 9.0, random), NEW_SPEAKER_MS_MIN - 1)
    assert set(speakers.labels) == {1, 2}
    speakers.recluster()
    assert set(speakers.labels) == {1, 2}
    assert list(speakers.labels[:2]) == [1, 2]


def test_the_first_utterance_opens_a_speaker_even_if_it_is_short() -> None:
    speakers = label_all([0], duration_ms=200)
    assert list(speakers.labels) == [1]


def test_there_are_at_most_speakers_max() -> None:
    speakers = label_all(list(range(SPEAKERS_MAX + 5)), noise=0.1)
    assert max(speakers.labels) == SPEAKERS_MAX
    speakers.recluster()
    assert len(set(speakers.labels)) <= SPEAKERS_MAX


def test_many_utterances_take_bounded_space_and_all_can_be_corrected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GROUPS_MAX", 12)
    turns = [0, 1, 2] * 40
    speakers = label_all(turns)
    assert len(speakers._long) < 12
    for index in range(len(turns)):
        speakers.labels[index] += 7  # As if every label were wrong.
    assert same_partition(list(speakers.labels), turns)
    speakers.recluster()
    assert same_partition(list(speakers.labels), turns)
    speakers.labels[5] = speakers.labels[0]
    assert speakers.recluster() == [5]


def test_labels_change_as_little_as_possible() -> None:
    turns = [0] * 5 + [1] * 6
    speakers = label_all(turns)
    # Two of the second voice had the first's label.
    for index in (5, 6):
        speakers.labels[index] = 1
    assert speakers.recluster() == [5, 6]
    assert list(speakers.labels) == [1] * 5 + [2] * 6


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        (b"\0" * 4 * DIMENSION, "invalid"),
        (b"123", "invalid"),
        (np.full(DIMENSION, np.nan, "<f4").tobytes(), "invalid"),
        (np.full(DIMENSION, np.inf, "<f4").tobytes(), "invalid"),
        (np.ones(DIMENSION - 1, "<f4").tobytes(), "dimension"),
    ],
)
def test_an_unusable_embedding_is_reported_and_labels_nothing(
    embedding: bytes, reason: str
) -> None:
    speakers = label_all([0])
    assert speakers.add(embedding, LONG_MS) == reason
    assert list(speakers.labels) == [1, UNKNOWN]
    assert speakers.recluster() == []


def test_without_an_embedding_a_segment_has_no_speaker() -> None:
    speakers = Speakers(SIMILARITY)
    assert speakers.add(b"", LONG_MS) is None
    assert list(speakers.labels) == [UNKNOWN]
    assert speakers.recluster() == []


def test_another_gateway_continues_with_the_centroids() -> None:
    of = voices(3)
    random = np.random.default_rng(9)
    before = label_all([0, 1, 1], of=of)
    after = Speakers(SIMILARITY, before.labels, before.centroids())
    for turn in (1, 2, 0):
        after.add(heard(of[turn], 0.7, random), LONG_MS)
    assert list(after.labels) == [1, 2, 2, 2, 3, 1]
    assert after.recluster() == []


def test_the_end_corrects_segments_of_the_gateway_before() -> None:
    """The gateway before opened two speakers for one voice."""
    of = voices(1)
    random = np.random.default_rng(9)
    before = label_all([0, 0], of=of)
    (centroid,) = before.centroids()
    twice = [centroid, type(centroid)(speaker=2, weight_ms=2_000, vector=centroid.vector)]
    after = Speakers(SIMILARITY, [1, 2], twice)
    after.add(heard(of[0], 0.7, random), LONG_MS)
    after.recluster()
    assert len(set(after.labels)) == 1


def test_without_the_centroids_no_label_is_given_again() -> None:
    before = label_all([0, 1, 1])
    after = Speakers(SIMILARITY, before.labels)
    after.add(heard(voices(1, seed=5)[0], 0.7, np.random.default_rng(0)), LONG_MS)
    assert list(after.labels) == [1, 2, 2, 3]
    assert after.recluster() == []


def test_centroids_of_another_model_are_not_used() -> None:
    before = label_all([0, 1])
    after = Speakers(SIMILARITY, before.labels, before.centroids()[:1])
    assert after.add(np.ones(DIMENSION + 1, "<f4").tobytes(), LONG_MS) == "dimension"
