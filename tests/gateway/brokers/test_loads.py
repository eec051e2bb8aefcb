"""The loads of several brokers as one."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.brokers.loads import combined
from tests.gateway.admission.test_policy import LOAD
from wire.messages import Abilities, ServedModel

MODEL = ServedModel(
    name="a",
    model="demo",
    workers=2,
    workers_busy=1,
    throughput_rtfx=90.0,
    queued_audio_ms=10,
    est_wait_ms=100,
    utterance_ms=40,
    arriving_audio_rate=3.0,
    expected_audio_rate=5.0,
    partials_busy=0.5,
    abilities=Abilities(itn=True),
)
ONE = replace(
    LOAD, queued=1, workers_busy=2, est_wait_ms=100, gateways=3, served=(MODEL,), models=("demo",)
)


def test_the_load_of_one_broker_is_that_of_all() -> None:
    assert combined([ONE]) is ONE


def test_work_adds_up_and_workers_are_the_same_ones() -> None:
    starting = replace(ONE, workers=1, workers_busy=1, gateways=2, models=("other",), served=())
    both = combined([starting, ONE])
    assert (both.queued, both.est_wait_ms, both.gateways) == (2, 200, 3)
    assert (both.workers, both.workers_busy) == (2, 2)
    assert both.throughput_rtfx == ONE.throughput_rtfx
    assert both.models == ("demo", "other") and both.served == (MODEL,)


def test_of_the_links_to_workers_the_fullest_counts() -> None:
    unknown = replace(ONE, workers_sent_rate=9e6, workers_sent_peak_rate=9e6)
    wide = replace(unknown, workers_link_rate=90e6)
    full = replace(ONE, workers_sent_rate=1e6, workers_sent_peak_rate=2e6, workers_link_rate=3e6)
    joined = combined([unknown, full, wide])
    assert (joined.workers_sent_rate, joined.workers_sent_peak_rate) == (1e6, 2e6)
    assert joined.workers_link_rate == 3e6


def test_models_are_joined_by_name() -> None:
    slower = replace(MODEL, throughput_rtfx=80.0, expected_audio_rate=4.0, abilities=Abilities())
    fresh = replace(slower, workers=1)
    extra = ServedModel(name="0", model="x", workers=1)
    joined = combined([replace(ONE, served=(fresh,)), replace(ONE, served=(MODEL, extra))])
    assert joined.served == (
        extra,
        replace(
            MODEL,
            workers_busy=2,
            queued_audio_ms=20,
            est_wait_ms=200,
            arriving_audio_rate=6.0,
            partials_busy=1.0,
        ),
    )
