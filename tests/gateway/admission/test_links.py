from __future__ import annotations

import pytest
from msgspec import structs

from gateway.admission.links import BYTES_PER_AUDIO_S, LINK_UTILISATION_MAX, utilisation
from gateway.admission.policy import KNOWN_SESSION_S
from runtime.link_rate import LinkUse
from tests.gateway.admission.test_policy import LOAD, admission, decide

NARROW = LinkUse(sent=6 * 30_000.0, sent_peak=6 * 32_000.0, capacity=239_000.0)
"""2 Mbit/s without the headers of packets, with six speakers."""


def test_as_many_are_admitted_as_a_full_link_carries() -> None:
    subject = admission(admit_session_audio_rate=0.85, max_connections=100)
    assert decide(subject, own=40) is None, "nothing is known of the link"
    subject.note_links([NARROW])
    subject.note_load(LOAD, KNOWN_SESSION_S)
    assert decide(subject, KNOWN_SESSION_S, own=7) is None
    assert decide(subject, KNOWN_SESSION_S, own=8) == "overloaded"
    assert decide(subject, KNOWN_SESSION_S, own=1) is None
    assert decide(subject, KNOWN_SESSION_S, own=8, lane="bulk") is None


def test_new_sessions_count_before_they_send() -> None:
    subject = admission(admit_session_audio_rate=1.0, max_connections=100)
    subject.note_links([LinkUse(capacity=10 * BYTES_PER_AUDIO_S)])
    admitted = [decide(subject, own=number) for number in range(1, 12)]
    assert admitted.count(None) == int(10 * LINK_UTILISATION_MAX)


def test_the_links_from_the_broker_to_its_workers_count_with_the_sessions_of_all_gateways() -> None:
    load = structs.replace(
        LOAD,
        workers_sent_rate=NARROW.sent,
        workers_sent_peak_rate=NARROW.sent_peak,
        workers_link_rate=NARROW.capacity,
    )
    subject = admission(load, admit_session_audio_rate=0.85, max_connections=100)
    assert decide(subject, own=3, others=4) is None
    subject = admission(load, admit_session_audio_rate=0.85, max_connections=100)
    assert decide(subject, own=3, others=5) == "overloaded"
    unknown = structs.replace(load, workers_link_rate=0.0)
    subject = admission(unknown, admit_session_audio_rate=0.85, max_connections=100)
    assert decide(subject, own=3, others=50) is None


def test_sessions_spread_over_several_links() -> None:
    half = LinkUse(capacity=10 * BYTES_PER_AUDIO_S)
    both = utilisation([half, half], sharing=2, expected_audio_rate=8.0, present_audio_rate=8.0)
    assert both == pytest.approx(0.4)
    uneven = utilisation([half, NARROW], sharing=2, expected_audio_rate=0.0, present_audio_rate=0.0)
    assert uneven == pytest.approx(NARROW.sent / NARROW.capacity), "the fullest counts"


def test_what_is_sent_counts_however_few_sessions_are_expected_to_send() -> None:
    link = LinkUse(sent=90_000.0, sent_peak=99_000.0, capacity=100_000.0)
    nobody = {"expected_audio_rate": 0.0, "present_audio_rate": 0.0}
    assert utilisation([link], sharing=1, **nobody) == pytest.approx(0.9)
    assert utilisation([], sharing=0, **nobody) == 0.0
    assert utilisation([LinkUse(sent=1e9)], sharing=1, **nobody) == 0.0
