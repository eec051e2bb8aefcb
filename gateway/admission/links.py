"""Core: whether the links of the bus carry one more session."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.link_rate import LinkUse
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

LINK_UTILISATION_MAX = 0.88
"""Share of a link's capacity that sessions may use. Utterances arrive at random times, and queue
well before it is used up."""
BYTES_PER_AUDIO_S = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE


def utilisation(
    links: Sequence[LinkUse],
    *,
    sharing: int,
    expected_audio_rate: float,
    present_audio_rate: float,
    next_audio_rate: float = 0.0,
) -> float:
    """Return the utilisation to expect of the fullest of ``links``; 0: there is none. Sessions
    spread evenly over ``sharing`` links.

    All rates are seconds of audio per second. ``expected_audio_rate``: expected of new sessions and
    not measured yet. ``present_audio_rate``: expected of all sessions present. Measured and
    expected audio together are no more than that, unless more is measured. ``next_audio_rate``:
    expected of the session to be admitted.
    """
    each = BYTES_PER_AUDIO_S / max(1, sharing)
    expected, present = expected_audio_rate * each, present_audio_rate * each
    used = (max(link.sent, min(link.sent_peak + expected, present)) for link in links)
    return max(
        ((n + next_audio_rate * each) / link.capacity for n, link in zip(used, links, strict=True)),
        default=0.0,
    )
