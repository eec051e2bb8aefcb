"""The number of workers where no setting has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_worker.settings import WORKERS_MAX, WorkerSettings
from asr_worker.worker_count import Machine, this_machine, worker_count

GIB = 1 << 30


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model of 300 MiB: a worker with it needs 1,300 MiB."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.yaml").write_text("model: x\n")
    with (directory / "model.pt").open("wb") as file:
        file.truncate((300 << 20) - 9)
    return str(directory)


@pytest.mark.parametrize(
    ("machine", "more", "workers"),
    [
        (Machine(cores=2, memory_bytes=8 * GIB, gpu=False), {}, 2),
        (Machine(cores=2.5, memory_bytes=8 * GIB, gpu=False), {}, 2),
        (Machine(cores=0.5, memory_bytes=8 * GIB, gpu=False), {}, 1),
        (Machine(cores=8, memory_bytes=8 * GIB, gpu=False), {}, 4),
        (Machine(cores=8, memory_bytes=0, gpu=False), {}, 1),
        (Machine(cores=1_000, memory_bytes=1_000 * GIB, gpu=False), {}, WORKERS_MAX),
        (Machine(cores=8, memory_bytes=80 * GIB, gpu=False), {"asr_threads": 2}, 4),
        (Machine(cores=8, memory_bytes=80 * GIB, gpu=True), {}, 1),
        (Machine(cores=8, memory_bytes=80 * GIB, gpu=True), {"asr_device": "cpu"}, 8),
        (Machine(cores=8, memory_bytes=80 * GIB, gpu=False), {"asr_device": "cuda:0"}, 1),
        (Machine(cores=8, memory_bytes=80 * GIB, gpu=False), {"ASR_WORKERS": 3}, 3),
    ],
)
def test_a_machine_gets_as_many_workers_as_it_has_room_for(
    machine: Machine, more: dict[str, object], workers: int, model: str
) -> None:
    values = WorkerSettings.model_validate({"asr_model": model, **more})
    assert worker_count(values, machine).workers == workers


def test_several_models_share_the_machine(model: str) -> None:
    machine = Machine(cores=8, memory_bytes=80 * GIB, gpu=False)
    values = WorkerSettings(asr_models=f"a={model},b={model}")
    found = worker_count(values, machine)
    assert found.workers == 4
    assert "8 cores have room for 4 of each model" in found.reason


def test_the_memory_of_all_models_of_a_worker_counts(model: str) -> None:
    machine = Machine(cores=8, memory_bytes=8 * GIB, gpu=False)
    values = WorkerSettings(asr_model=model, asr_punc_model=model)
    assert worker_count(values, machine).workers == 3


@pytest.mark.parametrize("name", ["demo", "fake:1ms"])
def test_one_worker_is_enough_for_a_model_that_is_faster_than_a_gateway(name: str) -> None:
    machine = Machine(cores=8, memory_bytes=80 * GIB, gpu=False)
    assert worker_count(WorkerSettings(asr_model=name), machine).workers == 1


def test_a_container_has_less_than_its_machine(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    whole = this_machine(cgroup, meminfo, tmp_path / "no card")
    assert whole.cores >= 1
    assert (whole.memory_bytes, whole.gpu) == (4_000 * 1024, False)
    cgroup.mkdir()
    (cgroup / "cpu.max").write_text("50000 100000\n")
    (cgroup / "memory.max").write_text("3000000\n")
    (cgroup / "memory.current").write_text("1000000\n")
    assert this_machine(cgroup, meminfo, meminfo) == Machine(0.5, 2_000_000, gpu=True)
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert this_machine(cgroup, meminfo, tmp_path / "no card") == whole


def test_a_machine_that_reports_nothing_about_its_memory_gets_one_worker(
    tmp_path: Path, model: str
) -> None:
    machine = this_machine(tmp_path, tmp_path / "nothing", tmp_path / "no card")
    assert machine.memory_bytes == 0
    assert worker_count(WorkerSettings(asr_model=model), machine).workers == 1
