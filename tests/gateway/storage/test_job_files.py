from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest

from gateway.storage.job_files import FullError, JobFiles, Ticket


def ticket(job_id: str) -> Ticket:
    return Ticket(job_id=job_id, resume_token="secret", client="::1", language="zh")


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path / "jobs", 2, 1_000)


def test_files_wait_in_the_order_of_submission(files: JobFiles, tmp_path: Path) -> None:
    assert files.put(ticket("b"), io.BytesIO(b"first\naudio")) == 0
    assert files.put(ticket("a"), io.BytesIO(b"second")) == 1
    taken = files.take("b")
    assert taken is not None and taken.ticket == ticket("b") and taken.attempts == 0
    assert (taken.read(0, 5), taken.read(6, 100), taken.read(11, 5)) == (b"first", b"audio", b"")
    taken.note_attempts(3)
    assert files.waiting() == ["b", "a"]
    assert files.take("b") is None, "it is locked"
    taken.close()
    again = files.take("b")
    assert again is not None and (again.attempts, again.ticket) == (3, ticket("b"))
    again.remove()
    assert files.waiting() == ["a"] and files.owner("b") is None and files.take("b") is None
    assert files.remove("a") and not files.remove("a")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "jobs").parent.glob("jobs")}
    assert modes == {0o700}


@pytest.mark.parametrize(("sizes", "fits"), [((1, 1), False), ((800,), False), ((100,), True)])
def test_number_and_bytes_are_limited(files: JobFiles, sizes: tuple[int, ...], fits: bool) -> None:
    for size in sizes:
        files.put(ticket(f"job{size}{files.waiting()}"), io.BytesIO(bytes(size)))
    if fits:
        files.put(ticket("last"), io.BytesIO(bytes(200)))
    else:
        with pytest.raises(FullError):
            files.put(ticket("last"), io.BytesIO(bytes(200)))
    assert ("last" in files.waiting()) is fits


def test_damaged_and_unfinished_files_are_not_jobs(files: JobFiles, tmp_path: Path) -> None:
    files.sweep()  # There is no folder yet.
    files.put(ticket("a"), io.BytesIO(b"audio"))
    folder = tmp_path / "jobs"
    (folder / "half.tmp").write_bytes(b"0{")
    (folder / "bad.job").write_bytes(b"audio without a ticket")
    files.sweep()
    assert files.take("bad") is None
    assert sorted(path.name for path in folder.iterdir()) == ["a.job", "bad.damaged", "lock"]


def test_a_file_has_an_owner(files: JobFiles) -> None:
    files.put(ticket("a"), io.BytesIO(b"audio"))
    files.put(msgspec.structs.replace(ticket("b"), tenant="acme"), io.BytesIO(b"audio"))
    assert [files.owner(job_id) for job_id in ("a", "b", "c")] == ["default", "acme", None]
