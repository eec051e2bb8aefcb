"""The gateway of the benchmarks against a real broker, and its jobs."""

from __future__ import annotations

from tools.lab.bench.peers import Gateway, bus_addresses, cpu_s, job_of, running


def test_jobs_go_round_the_sessions() -> None:
    jobs = [job_of(b"\0\0", number, sessions=2) for number in range(4)]
    assert [(job.session_id, job.seq) for job in jobs] == [
        ("session-0", 0),
        ("session-1", 0),
        ("session-0", 1),
        ("session-1", 1),
    ]


def test_a_job_through_broker_and_worker() -> None:
    with bus_addresses() as bus, running("-m", "broker", **bus) as broker:
        worker = running("-m", "tools.lab.bench.fleet", "1", ASR_MODEL="fake:1ms", **bus)
        with worker, Gateway(bus["BROKER_FRONTEND"]) as gateway:
            gateway.await_workers(1)
            gateway.send(job_of(bytes(64), 0, sessions=1))
            while not (results := gateway.results()):
                pass
            assert results[0].session_id == "session-0" and results[0].error is None
            assert cpu_s(broker) > 0
