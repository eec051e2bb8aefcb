"""The supervisor of the workers: crashes, hangs, wrong settings, and no orphans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runtime import exit_codes
from tests.asr_worker import faulty_main
from tests.asr_worker.broker_side import BrokerSide, worker_job
from tests.asr_worker.faulty_main import CRASH, HANG
from wire.messages import Bye, Ready


def supervised(side: BrokerSide, **environment: str) -> tuple[subprocess.Popen[bytes], bytes]:
    """A supervisor of workers with faults, and the first worker's identity."""
    process = side.start(faulty_main.MODULE, "supervisor", ASR_MODEL="fake:0ms", **environment)
    return process, side.welcome()


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(process.pid).children()
    return found


def assert_works(side: BrokerSide, identity: bytes, job_id: int) -> None:
    side.send(identity, worker_job(job_id, b"\0\0"))
    assert side.results({job_id})[job_id].text


def test_a_killed_worker_is_restarted_with_a_new_identity(broker_side: BrokerSide) -> None:
    process, identity = supervised(broker_side)
    (child,) = children_of(process)
    child.kill()
    restarted = broker_side.welcome()
    assert restarted != identity
    assert_works(broker_side, restarted, 1)


def test_a_crashed_worker_is_restarted(broker_side: BrokerSide) -> None:
    _, identity = supervised(broker_side)
    broker_side.send(identity, worker_job(1, CRASH))
    restarted = broker_side.welcome()
    assert restarted != identity
    assert_works(broker_side, restarted, 2)


def test_a_hung_worker_is_killed_and_restarted(broker_side: BrokerSide) -> None:
    process, identity = supervised(broker_side, ASR_HANG_S="0.5")
    (hung,) = children_of(process)
    broker_side.send(identity, worker_job(1, HANG))
    restarted = broker_side.welcome()
    assert restarted != identity
    assert not hung.is_running()
    assert all(beat.busy_ms < 500 for beat in broker_side.heartbeats_of(identity))
    assert_works(broker_side, restarted, 2)


def test_a_stopped_worker_is_killed_and_restarted(broker_side: BrokerSide) -> None:
    process, identity = supervised(broker_side)
    (stopped,) = children_of(process)
    stopped.suspend()
    assert broker_side.welcome() != identity
    assert not stopped.is_running()


def test_a_worker_that_got_sigterm_sends_bye_and_is_restarted(broker_side: BrokerSide) -> None:
    process, identity = supervised(broker_side)
    (child,) = children_of(process)
    child.terminate()
    assert broker_side.wait_for(Bye)[0] == identity
    assert broker_side.wait_for(Ready)[0] != identity


def test_all_workers_end_with_the_supervisor(broker_side: BrokerSide) -> None:
    process, first = supervised(broker_side, ASR_WORKERS="2")
    assert broker_side.welcome() != first
    children = children_of(process)
    assert len(children) == 2
    process.terminate()
    assert process.wait(60) == exit_codes.OK
    assert not any(child.is_running() for child in children)


def test_a_killed_supervisor_leaves_no_orphan(broker_side: BrokerSide) -> None:
    process, _ = supervised(broker_side)
    children = children_of(process)
    process.kill()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert gone
    assert not alive


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ASR_MODEL", "/no/such/directory", "no such model directory: /no/such/directory"),
        ("ASR_MODEL", "paraformr-zh", "did you mean 'paraformer-zh'?"),
        ("ASR_DEVICE", "toaster", "ASR_DEVICE"),
        ("ASR_PRECISION", "int4", "ASR_PRECISION"),
        ("ASR_WORKERS", "0", "ASR_WORKERS"),
        ("ASR_ONLINE_MODEL", "fake:1ms", "not a streaming model"),
        ("ASR_PUNC_MODEL", "fake:1ms", "not a punctuation model"),
    ],
)
def test_a_wrong_setting_is_a_one_line_error(
    broker_side: BrokerSide, variable: str, value: str, reason: str
) -> None:
    environment = {"ASR_MODEL": "fake:0ms", variable: value}
    process = broker_side.start("asr_worker", **environment)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_codes.CONFIG
    (line,) = stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_a_missing_device_ends_the_supervisor(
    broker_side: BrokerSide, tiny_model_dir: object
) -> None:
    process = broker_side.start("asr_worker", ASR_MODEL=str(tiny_model_dir), ASR_DEVICE="cuda:63")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_codes.CONFIG
    errors = [line for line in stderr.decode().splitlines() if line.startswith("error: ")]
    assert errors == ["error: ASR_DEVICE: cuda:63 is not available on this machine"]


def test_a_model_that_was_not_pulled_ends_the_supervisor(
    broker_side: BrokerSide, tmp_path: Path
) -> None:
    process = broker_side.start(
        "asr_worker", ASR_MODEL="whisper-base", ASR_MODEL_DIR=str(tmp_path), ASR_WORKERS="2"
    )
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_codes.CONFIG
    (error,) = [line for line in stderr.decode().splitlines() if line.startswith("error: ")]
    assert "`asr models pull whisper-base`" in error


def test_the_supervisor_does_not_import_torch() -> None:
    program = "import sys, asr_worker.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_workers_get_thread_count_and_kernel_cache_size(broker_side: BrokerSide) -> None:
    process, _ = supervised(broker_side, ASR_THREADS="3")
    (child,) = children_of(process)
    environment = child.environ()
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_each_model_has_its_workers(broker_side: BrokerSide) -> None:
    broker_side.start(
        faulty_main.MODULE, "supervisor", ASR_MODELS="a=fake:0ms,b=fake:1ms", ASR_WORKERS="2"
    )
    readies = [broker_side.wait_for(Ready)[1] for _ in range(4)]
    assert sorted((ready.served_name, ready.model) for ready in readies) == [
        *[("a", "fake:0ms")] * 2,
        *[("b", "fake:1ms")] * 2,
    ]
