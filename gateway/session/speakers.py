"""Core: the speakers of a session's segments, by the utterances' speaker embeddings.

While the session runs, an utterance joins the most similar speaker or opens a new one. At the end
all utterances are clustered again (agglomerative, average linkage), which corrects early mistakes;
each cluster then takes the label that most of its speech already has.

The similarity of two utterances is the cosine of their embeddings, that of two groups the mean over
all pairs, weighted by duration. For unit vectors this mean is the product of the groups' mean
vectors, so a group keeps only its weighted sum. The cosine to a normalised centroid would grow with
the number of utterances in it, and no threshold would fit both small and large groups.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from wire.records import SpeakerCentroid

SPEAKERS_MAX = 16
"""Speakers of a session. Further voices join the most similar one."""
NEW_SPEAKER_MS_MIN = 1_000
"""A shorter utterance joins the most similar speaker, because its embedding is too uncertain to
open another."""
GROUPS_MAX = 128
"""Long utterances kept apart for the clustering at the end, and short ones. At this number the most
similar are merged, as that clustering would do, until half as many groups are left. With 192 values
in an embedding both take 200 kB."""
UNKNOWN = 0
"""The label of a segment without a usable embedding. Speakers count from 1."""

Vector = npt.NDArray[np.float32]
Unusable = Literal["invalid", "dimension"]


@dataclass(slots=True)
class _Group:
    """Utterances of one voice: their sum, weighted by duration."""

    total: Vector
    weight_ms: int
    segments: list[tuple[int, int]] = field(default_factory=list)
    """Index and duration of each."""

    @property
    def mean(self) -> Vector:
        return self.total / np.float32(self.weight_ms)

    def add(self, other: _Group) -> None:
        self.total = self.total + other.total
        self.weight_ms += other.weight_ms
        self.segments += other.segments


class Speakers:
    """The speakers of one session. ``labels`` has the label of each segment, by its index."""

    def __init__(
        self,
        similarity_min: float,
        labels: Iterable[int] = (),
        centroids: Sequence[SpeakerCentroid] = (),
        label_max: int = 0,
    ) -> None:
        """``labels`` and ``centroids``: of a session taken over from another gateway, in which
        ``label_max`` is the highest label. No other voice gets one of these labels: a known voice
        without a stored centroid gets a new one."""
        self.labels = array("H", labels)
        self._similarity_min = similarity_min
        self._speakers: dict[int, _Group] = {}
        self._long: list[_Group] = []
        self._short: list[_Group] = []
        self._next_label = max(label_max, *self.labels, 0) + 1
        for centroid in centroids:
            self._restore(centroid)

    @property
    def count(self) -> int:
        """Number of speakers so far."""
        return len(self._speakers)

    def _restore(self, centroid: SpeakerCentroid) -> None:
        vector = self._vector(centroid.vector)
        if isinstance(vector, str) or not centroid.weight_ms or not centroid.speaker:
            return  # Stored by another release, or of another model.
        total = vector * centroid.weight_ms
        said = [index for index, label in enumerate(self.labels) if label == centroid.speaker]
        self._speakers[centroid.speaker] = _Group(total, centroid.weight_ms)
        if said:
            share_ms = max(1, centroid.weight_ms // len(said))
            segments = [(index, share_ms) for index in said]
            self._long.append(_Group(total, centroid.weight_ms, segments))
        self._next_label = max(self._next_label, centroid.speaker + 1)

    def add(self, embedding: bytes, duration_ms: int) -> Unusable | None:
        """Label the next segment; ``embedding`` is empty if the worker has sent none. Returns why
        the embedding is unusable, if it is."""
        index = len(self.labels)
        self.labels.append(UNKNOWN)
        if not embedding or duration_ms <= 0:
            return None
        vector = self._vector(embedding, normalise=True)
        if isinstance(vector, str):
            return vector
        group = _Group(vector * duration_ms, duration_ms, [(index, duration_ms)])
        label = self._nearest(vector, duration_ms)
        if label == UNKNOWN:
            label, self._next_label = self._next_label, self._next_label + 1
            self._speakers[label] = _Group(group.total, duration_ms)
        else:
            self._speakers[label].add(_Group(group.total, duration_ms))
        self.labels[index] = label
        kept = self._short if duration_ms < NEW_SPEAKER_MS_MIN else self._long
        kept.append(group)
        if len(kept) >= GROUPS_MAX:
            kept[:] = _merged(kept, np.inf, GROUPS_MAX // 2)
        return None

    def _nearest(self, vector: Vector, duration_ms: int) -> int:
        """The speaker that an utterance joins; UNKNOWN: a new one."""
        if not self._speakers:
            return UNKNOWN
        means = np.stack([speaker.mean for speaker in self._speakers.values()])
        similarities = means @ vector
        best = int(similarities.argmax())
        alike = similarities[best] >= self._similarity_min
        if alike or duration_ms < NEW_SPEAKER_MS_MIN or len(self._speakers) >= SPEAKERS_MAX:
            return list(self._speakers)[best]
        return UNKNOWN

    def recluster(self) -> list[int]:
        """Cluster all utterances. Returns the segments whose label is another than before."""
        groups = _merged(self._long or self._short, self._similarity_min, SPEAKERS_MAX)
        if self._long and self._short:
            means = np.stack([group.mean for group in groups])
            for short in self._short:
                groups[int((means @ short.mean).argmax())].add(short)
        changed = []
        labels = self._matched(groups)
        self._speakers = dict(zip(labels, groups, strict=True))
        for group, label in zip(groups, labels, strict=True):
            for index, _ in group.segments:
                if self.labels[index] != label:
                    self.labels[index] = label
                    changed.append(index)
        return sorted(changed)

    def _matched(self, groups: list[_Group]) -> list[int]:
        """A label for each group: first the pair of group and label with the most speech in common,
        then the next. New labels are given in order of appearance."""
        found = [UNKNOWN] * len(groups)
        shared: dict[tuple[int, int], int] = defaultdict(int)
        for number, group in enumerate(groups):
            for index, duration_ms in group.segments:
                shared[number, self.labels[index]] += duration_ms
        taken: set[int] = set()
        for number, label in sorted(shared, key=lambda pair: (-shared[pair], pair[1])):
            if found[number] == UNKNOWN and label not in taken:
                found[number] = label
                taken.add(label)
        for number in sorted(range(len(groups)), key=lambda number: min(groups[number].segments)):
            if found[number] == UNKNOWN:
                found[number], self._next_label = self._next_label, self._next_label + 1
        return found

    def centroids(self) -> tuple[SpeakerCentroid, ...]:
        """Mean vectors of the speakers, for a gateway that takes the session over."""
        return tuple(
            SpeakerCentroid(
                speaker=label,
                weight_ms=speaker.weight_ms,
                vector=speaker.mean.astype("<f4").tobytes(),
            )
            for label, speaker in self._speakers.items()
        )

    def _vector(self, packed: bytes, *, normalise: bool = False) -> Vector | Unusable:
        if len(packed) % 4:
            return "invalid"
        vector = np.frombuffer(packed, "<f4").astype(np.float32)
        length = float(np.linalg.norm(vector))
        if not 0.0 < length < np.inf:
            return "invalid"
        if any(len(speaker.total) != len(vector) for speaker in self._speakers.values()):
            return "dimension"
        return vector / length if normalise else vector


def _merged(groups: Sequence[_Group], similarity_min: float, groups_max: int) -> list[_Group]:
    """Merge the two most similar groups, repeatedly, until at most ``groups_max`` are left and no
    two have ``similarity_min``."""
    groups = [_Group(each.total, each.weight_ms, list(each.segments)) for each in groups]
    if not groups:
        return []
    means = np.stack([group.mean for group in groups])
    similarities = means @ means.T
    np.fill_diagonal(similarities, -np.inf)
    left = np.full(len(groups), True)
    while True:
        one, other = sorted(divmod(int(similarities.argmax()), len(groups)))
        if similarities[one, other] < similarity_min and left.sum() <= groups_max:
            return [group for group, is_left in zip(groups, left, strict=True) if is_left]
        groups[one].add(groups[other])
        left[other] = False
        means[one] = groups[one].mean
        row = np.where(left, means @ means[one], -np.inf)
        row[one] = -np.inf
        similarities[one] = similarities[:, one] = row
        similarities[other] = similarities[:, other] = -np.inf
