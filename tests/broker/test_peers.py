"""Leases of gateways, unregistered workers and subscriptions."""

from __future__ import annotations

import pytest

from broker import limits as limit
from broker.peers import Gateways, Subscriptions, UnregisteredWorkers, is_utf8
from tests.broker.driving import job, published, result
from wire.messages import ExpectedAudio, Hello, PublishedRecord, Record

RECORD = PublishedRecord(
    broker_epoch="epoch",
    gateway_id="gateway-1",
    record=Record(session_id="session", record_seq=0, body={}),
)


def test_a_lease_ends_after_its_time_and_takes_the_expected_audio_with_it() -> None:
    gateways = Gateways(lease_s=5.0)
    for identity in (b"a", b"b"):
        gateways.renew(identity, 0.0)
        gateways.expect(identity, Hello(gateway_id="g", expected_audio_rate=2.0))
    gateways.renew(b"b", 1.0)
    assert gateways.expire(5.0) == []
    assert gateways.expire(5.5) == [b"a"]
    assert (list(gateways), gateways.expected_audio_rate) == ([b"b"], 2.0)


def test_expected_audio_is_summed_by_model() -> None:
    gateways = Gateways(lease_s=5.0)
    zh, en = ExpectedAudio(model="zh", audio_rate=1.0), ExpectedAudio(model="en", audio_rate=2.0)
    for identity, expected in ((b"a", (zh, en)), (b"b", (en,)), (b"older", ())):
        gateways.renew(identity, 0.0)
        hello = Hello(gateway_id="g", expected_audio_rate=3.0, expected=expected)
        gateways.expect(identity, hello)
    assert gateways.expected_audio_rates == {"zh": 1.0, "en": 4.0, "": 3.0}


def test_leases_are_extended_by_a_pause_but_not_into_the_future() -> None:
    gateways = Gateways(lease_s=5.0)
    gateways.renew(b"a", 0.0)
    gateways.renew(b"b", 9.0)
    gateways.extend(8.0, 10.0)
    assert gateways.expire(13.0) == []
    assert gateways.expire(13.5) == [b"a"]
    assert gateways.expire(15.5) == [b"b"]


def test_gateways_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "GATEWAYS_MAX", 1)
    gateways = Gateways(lease_s=5.0)
    assert not gateways.full
    gateways.renew(b"a", 0.0)
    assert gateways.full and b"a" in gateways and len(gateways) == 1


def test_a_welcome_is_due_once_per_interval() -> None:
    workers = UnregisteredWorkers()
    assert workers.take_welcome(b"a", 0.0)
    assert not workers.take_welcome(b"a", limit.WELCOME_INTERVAL_S / 2)
    assert workers.take_welcome(b"b", limit.WELCOME_INTERVAL_S / 2)
    assert workers.take_welcome(b"a", limit.WELCOME_INTERVAL_S)


def test_remembered_workers_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "WORKERS_MAX", 2)
    monkeypatch.setattr(limit, "QUARANTINED_MAX", 2)
    workers = UnregisteredWorkers()
    for identity in (b"a", b"b", b"c"):
        assert workers.take_welcome(identity, 0.0)
        workers.quarantine(identity)
    assert workers.take_welcome(b"a", 0.0) and not workers.take_welcome(b"c", 0.0)
    assert [workers.is_quarantined(i) for i in (b"a", b"b", b"c")] == [False, True, True]


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [(b"", (True, True)), (b"rec", (True, False)), (b"result", (False, True))],
)
def test_a_prefix_subscribes_to_the_topics_that_begin_with_it(
    prefix: bytes, wanted: tuple[bool, bool]
) -> None:
    subscriptions = Subscriptions()
    final = published(result(job())).message
    assert subscriptions.change(prefix, present=True)
    assert (subscriptions.wanted(RECORD), subscriptions.wanted(final)) == wanted
    assert subscriptions.complete == all(wanted)
    assert subscriptions.change(prefix, present=False)
    assert not subscriptions.wanted(RECORD) and not subscriptions.wanted(final)


def test_a_prefix_of_no_topic_is_refused() -> None:
    assert not Subscriptions().change(b"something else", present=True)


def test_identities_must_be_utf_8() -> None:
    assert is_utf8("gateway-é".encode()) and not is_utf8(b"\xff")
