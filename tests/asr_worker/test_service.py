"""A worker process against a real ROUTER: with the real model, then with faults."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr_worker.recognizer.fake import fake_text
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import RECOGNITION_FAILED, Utterance
from asr_worker.settings import WorkerSettings
from runtime import exit_codes
from runtime.link_rate import TRIAL_BYTES
from tests.asr_worker import faulty_main
from tests.asr_worker.broker_side import EPOCH, BrokerSide, worker_job
from tests.asr_worker.faulty_main import HANG, RAISE, WAIT_FOR_FILE
from tools.lab.digit_speech import VOICES, random_digits, speak
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess, wait_until
from wire import codec
from wire.messages import (
    Bye,
    Heartbeat,
    Hello,
    JobAttempt,
    Mark,
    MarkArrived,
    Ready,
    Welcome,
    WorkerResult,
)


def spoken(seed: int) -> bytes:
    rng = random.Random(seed)
    return speak(random_digits(rng, rng.randint(1, 6)), rng.choice(VOICES), rng).tobytes()


@pytest.fixture(scope="module")
def real_worker(tiny_model_dir: Path) -> Iterator[tuple[BrokerSide, bytes]]:
    """A worker with a real FunASR model, and its identity."""
    with BrokerSide() as side:
        process = side.start("asr_worker.service", ASR_MODEL=str(tiny_model_dir))
        identity = side.welcome()
        yield side, identity
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == exit_codes.OK, stderr.decode()
        assert stdout == b"", "FunASR must not print to stdout"


def test_each_job_gets_the_text_of_its_own_audio(
    real_worker: tuple[BrokerSide, bytes], tiny_model_dir: Path
) -> None:
    side, identity = real_worker
    audio = {job_id: spoken(job_id) for job_id in range(1, 41)}
    # The trial decides how many it takes at once: few on a busy machine.
    credits = next(m.credits for _, m in side.received if isinstance(m, Ready))
    waiting = list(audio)
    results: dict[int, WorkerResult] = {}
    while waiting:
        sent, waiting = waiting[:credits], waiting[credits:]
        for job_id in sent:
            side.send(identity, worker_job(job_id, audio[job_id]))
        results |= side.results(set(sent))
    recognizer = build(WorkerSettings(asr_model=str(tiny_model_dir)))
    for job_id, pcm in audio.items():
        (alone,) = recognizer.recognize([Utterance(pcm=pcm)])
        assert alone.text
        assert results[job_id].text == alone.text
        assert results[job_id].broker_epoch == EPOCH


def test_malformed_frames_are_ignored(
    real_worker: tuple[BrokerSide, bytes],
) -> None:
    side, identity = real_worker
    kind, header, pcm = codec.encode(worker_job(100, spoken(100)))
    for frames in (
        [b""],
        [b"\xff" * 9],
        [kind],
        [kind, header],
        [kind, header, b"odd"],
        [kind, b"\xc1" + header, pcm],
        [kind[:1] + b"\x63", header, pcm],
        [b"K\x01", b"\x80", b""],
        [b"x"] * 50,
        codec.encode(Hello(gateway_id="not for workers")),
    ):
        side.send_frames(identity, frames)
    side.send(identity, worker_job(101, spoken(101)))
    assert side.results({101})[101].text


def test_a_job_that_arrives_twice_gets_one_result(
    real_worker: tuple[BrokerSide, bytes],
) -> None:
    side, identity = real_worker
    side.send(identity, worker_job(110, spoken(110)))
    side.send(identity, worker_job(110, spoken(110)))
    side.results({110})
    side.send(identity, worker_job(110, spoken(110)))
    side.send(identity, worker_job(110, spoken(110), attempt=2))
    side.send(identity, worker_job(111, spoken(111)))
    again = side.results({110, 111})
    assert again[110].attempt == 2


@pytest.mark.parametrize("other_host", [False, True])
def test_a_result_reports_to_the_broker_of_another_host_how_long_the_worker_had_the_job(
    other_host: bool,
) -> None:
    with BrokerSide() as side:
        # 0.0.0.0 reaches this host, and counts as another.
        backend = side.endpoint.replace("127.0.0.1", "0.0.0.0") if other_host else side.endpoint
        side.start("asr_worker.service", ASR_MODEL="fake:20ms", BROKER_BACKEND=backend)
        identity, ready = side.wait_for(Ready)
        assert ready.answers_marks == other_host
        side.send(identity, Welcome(broker_epoch=EPOCH))
        side.send(identity, Mark(number=7, padding=bytes(TRIAL_BYTES)))
        assert side.wait_for(MarkArrived) == (identity, MarkArrived(number=7))
        sent_s = time.monotonic()
        side.send(identity, worker_job(115, spoken(115)))
        result = side.results({115})[115]
    if not other_host:
        assert result.held_ms is None
        return
    assert result.held_ms is not None
    assert result.infer_ms <= result.held_ms <= 1000 * (time.monotonic() - sent_s)


def test_the_health_check_waits_for_the_model(tmp_path: Path) -> None:
    """It asks as the chart does, which replaces a worker only by one that is ready."""
    first_port = free_port()
    may_load = tmp_path / "may load"
    environment = {"ASR_MODEL": "fake:1ms", "METRICS_PORT": str(first_port)}
    waits = {faulty_main.LOADS_AFTER: str(may_load), "BROKER_BACKEND": f"ipc://{tmp_path}/back"}

    def is_ready() -> bool:
        check = ["runtime.healthcheck", "asr_worker", "asr_worker_model_info"]
        done = subprocess.run([sys.executable, "-m", *check], env={**os.environ, **environment})
        return done.returncode == exit_codes.OK

    with LoggedProcess(faulty_main.MODULE, "worker", **waits, **environment) as worker:
        worker.event("metrics_served")
        assert not is_ready()
        may_load.touch()
        worker.event("worker_ready")
        wait_until(is_ready, "the health check", 60)


def test_too_short_audio_has_an_empty_text(real_worker: tuple[BrokerSide, bytes]) -> None:
    side, identity = real_worker
    for job_id, pcm in ((120, b""), (121, b"\0\0"), (122, b"\1\0" * 1_000)):
        side.send(identity, worker_job(job_id, pcm))
    results = side.results({120, 121, 122})
    assert [results[job_id].text for job_id in (120, 121, 122)] == ["", "", ""]


def test_a_new_epoch_makes_the_worker_register_again(
    real_worker: tuple[BrokerSide, bytes],
) -> None:
    side, identity = real_worker
    side.send(identity, Welcome(broker_epoch="epoch-2"))
    _, ready = side.wait_for(Ready)
    assert ready.worker_id == identity.decode()
    side.send(identity, Welcome(broker_epoch="epoch-2"))
    side.send(identity, worker_job(130, spoken(130)))
    side.send(identity, worker_job(131, spoken(131), broker_epoch="epoch-2"))
    assert side.results({131})[131].broker_epoch == "epoch-2"
    side.send(identity, Welcome(broker_epoch=EPOCH))
    side.wait_for(Ready)
    side.send(identity, Welcome(broker_epoch=EPOCH))


# ------------------------------------------------------------------ with faults


def faulty_worker(side: BrokerSide, **environment: str) -> tuple[subprocess.Popen[bytes], bytes]:
    process = side.start(faulty_main.MODULE, "worker", ASR_MODEL="fake:0ms", **environment)
    return process, side.welcome()


def begin_batch(side: BrokerSide, identity: bytes, job_id: int, pcm: bytes, **changes: str) -> None:
    """Send a job and wait until its batch runs."""
    side.send(identity, worker_job(job_id, pcm, **changes))
    side.wait_for(Heartbeat, lambda beat: beat.busy_ms > 0)


def test_sigterm_returns_queued_jobs_and_finishes_running_ones(
    broker_side: BrokerSide, tmp_path: Path
) -> None:
    process, identity = faulty_worker(broker_side)
    gate = tmp_path / "go on"
    begin_batch(broker_side, identity, 1, WAIT_FOR_FILE, language=str(gate))
    for job_id in (2, 3, 4):
        broker_side.send(identity, worker_job(job_id, b"\0\0" * job_id))
    process.terminate()
    _, bye = broker_side.wait_for(Bye)
    returned = list(bye.returned)
    # In transit when the worker sent Bye: it is returned as well.
    broker_side.send(identity, worker_job(5, b"\0\0"))
    while len(returned) < 4:
        returned += broker_side.wait_for(Bye)[1].returned
    assert returned == [JobAttempt(job_id=job_id, attempt=1) for job_id in (2, 3, 4, 5)]
    gate.touch()
    assert broker_side.results({1})[1].text == fake_text(WAIT_FOR_FILE)
    assert process.wait(60) == exit_codes.OK


def test_sigterm_returns_the_jobs_of_a_hanging_batch(broker_side: BrokerSide) -> None:
    process, identity = faulty_worker(broker_side)
    begin_batch(broker_side, identity, 1, HANG)
    process.terminate()
    _, bye = broker_side.wait_for(Bye)
    assert bye.returned == ()
    _, last_bye = broker_side.wait_for(Bye)
    assert last_bye.returned == (JobAttempt(job_id=1, attempt=1),)
    assert process.wait(60) == exit_codes.FAILURE


def test_sigterm_ends_a_worker_without_a_broker(broker_side: BrokerSide) -> None:
    process, identity = faulty_worker(broker_side)
    broker_side.send(identity, worker_job(1, b"\0\0"))
    broker_side.results({1})
    broker_side.close()
    process.terminate()
    assert process.wait(60) == exit_codes.OK


def test_a_hanging_batch_stops_the_heartbeats(broker_side: BrokerSide) -> None:
    process, identity = faulty_worker(broker_side, ASR_HANG_S="1.5")
    broker_side.wait_for(Heartbeat)
    broker_side.send(identity, worker_job(1, HANG))
    # One log event for each heartbeat that is withheld.
    wait_for_log(process, b"inference_hangs", times=2)
    broker_side.receive_all()
    assert all(beat.busy_ms < 1_500 for beat in broker_side.heartbeats_of(identity))


def wait_for_log(process: subprocess.Popen[bytes], event: bytes, times: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        times -= event in line
        if times == 0:
            return
    raise AssertionError(f"the process ended without {event!r}")


def test_a_model_that_cannot_batch_gets_one_utterance_at_a_time_and_does_not_hang(
    broker_side: BrokerSide,
) -> None:
    """Each utterance takes longer than ASR_HANG_S, according to the trial."""
    broker_side.start("asr_worker.service", ASR_MODEL="fake:300ms*1", ASR_HANG_S="0.05")
    identity = broker_side.welcome()
    jobs = {job_id: b"\0\0" * job_id for job_id in (1, 2)}  # As many as it has credits.
    for job_id, pcm in jobs.items():
        broker_side.send(identity, worker_job(job_id, pcm))
    results = broker_side.results(set(jobs))
    assert list(results) == list(jobs), "not answered one by one"
    assert [result.batch_jobs for result in results.values()] == [1] * len(jobs)
    assert broker_side.heartbeats_of(identity)


def test_a_recogniser_that_raises_fails_only_its_batch(
    broker_side: BrokerSide,
) -> None:
    _, identity = faulty_worker(broker_side)
    broker_side.send(identity, worker_job(1, RAISE))
    failed = broker_side.results({1})[1]
    assert failed.error is not None
    assert failed.error.code == RECOGNITION_FAILED
    broker_side.send(identity, worker_job(2, b"\0\0"))
    assert broker_side.results({2})[2].text == fake_text(b"\0\0")
