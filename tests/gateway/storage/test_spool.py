from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from gateway.storage import spool
from gateway.storage.spool import Spool
from wire import codec
from wire.messages import Record, StoredKey


def record(seq: int, generation: int = 0) -> Record:
    return Record(
        session_id="s", record_seq=seq, body={"type": "x", "n": seq}, generation=generation
    )


def key(seq: int, generation: int = 0) -> StoredKey:
    return StoredKey(session_id="s", kind="record", seq=seq, generation=generation)


def test_the_next_gateway_takes_records_until_they_are_stored(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    assert Spool(directory, "g1").write([]) == 0
    assert not directory.exists()
    assert Spool(directory, "g1").write([record(0), record(1), record(1, 2)]) == 3
    (path,) = directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    after = Spool(directory, "g2")
    assert after.take() == [record(0), record(1), record(1, 2)]
    after.confirm([key(0), key(1)])
    assert path.exists()
    after.confirm([key(1, 2)])
    assert not path.exists()


def test_one_gateway_at_a_time_holds_a_file(tmp_path: Path) -> None:
    Spool(tmp_path, "g1").write([record(0)])
    second, third = Spool(tmp_path, "g2"), Spool(tmp_path, "g3")
    assert second.take() == [record(0)]
    assert third.take() == []
    # A record in a held file is not written a second time.
    assert second.write([record(0), record(1)]) == 1
    second.close()
    assert third.take() == [record(0), record(1)]
    third.close()


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_damaged_file_is_set_aside(tmp_path: Path, place: int) -> None:
    Spool(tmp_path, "g1").write([record(n) for n in range(5)])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    before = REGISTRY.get_sample_value("asr_gateway_spool_damaged_files_total") or 0.0
    assert Spool(tmp_path, "g2").take() == []
    assert REGISTRY.get_sample_value("asr_gateway_spool_damaged_files_total") == before + 1
    assert [left.suffix for left in tmp_path.iterdir()] == [".damaged"]
    assert Spool(tmp_path, "g3").take() == []


def test_a_truncated_file_is_set_aside(tmp_path: Path) -> None:
    Spool(tmp_path, "g1").write([record(0)])
    (path,) = tmp_path.iterdir()
    for size in (30, 5, 0):
        path.write_bytes(path.read_bytes()[:size])
        assert Spool(tmp_path, "g2").take() == []
        path.with_suffix(".damaged").rename(path)


def test_the_limit_holds_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SPOOL_BYTES_MAX", 1_000)
    before = (
        REGISTRY.get_sample_value("asr_gateway_spool_dropped_records_total", {"reason": "full"})
        or 0.0
    )
    first = Spool(tmp_path, "g1").write([record(n) for n in range(10)])
    second = Spool(tmp_path, "g2").write([record(n) for n in range(10, 30)])
    assert first == 10 and 0 < second < 20
    after = REGISTRY.get_sample_value("asr_gateway_spool_dropped_records_total", {"reason": "full"})
    assert after == before + 20 - second


def test_a_disk_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = (
        REGISTRY.get_sample_value("asr_gateway_spool_dropped_records_total", {"reason": "disk"})
        or 0.0
    )
    assert Spool(tmp_path / "file", "g1").write([record(0)]) == 0
    after = REGISTRY.get_sample_value("asr_gateway_spool_dropped_records_total", {"reason": "disk"})
    assert after == before + 1


def test_an_unreadable_file_does_not_affect_the_others(tmp_path: Path) -> None:
    Spool(tmp_path, "g2").write([record(0)])
    (tmp_path / "a.spool").mkdir()
    (tmp_path / "z.spool").symlink_to(tmp_path / "z.spool")
    before = REGISTRY.get_sample_value("asr_gateway_spool_damaged_files_total") or 0.0
    after = Spool(tmp_path, "g3")
    assert after.take() == [record(0)]
    after.close()
    assert REGISTRY.get_sample_value("asr_gateway_spool_damaged_files_total") == before + 2


def test_files_may_vanish_while_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway on the same directory stops, or empties a file, at the same moment."""
    iterdir = Path.iterdir
    vanished = tmp_path / "gone.spool"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda path: iter([vanished, *iterdir(path)]))
        assert Spool(tmp_path, "g1").write([record(0)]) == 1
    after = Spool(tmp_path, "g2")
    assert after.take() == [record(0)]
    after.close()


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.storage.durable.os.fsync", full)
    assert Spool(tmp_path, "g1").write([record(0)]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, 2])
def test_files_of_another_protocol_version_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    def encode(message: Record) -> list[bytes]:
        _, header = codec.encode(message)
        return [codec.tag_of(Record)[:1] + bytes([version]), header]

    with monkeypatch.context() as patch:
        patch.setattr(spool, "codec", SimpleNamespace(encode=encode))
        assert Spool(tmp_path, "g1").write([record(0), record(1)]) == 2
    after = Spool(tmp_path, "g2")
    assert after.take() == [record(0), record(1)]
    assert len(after) == 1
    after.close()
    assert len(after) == 0
