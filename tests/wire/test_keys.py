from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.deleted_folders import without
from wire import keys


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.generate(tmp_path)
    return tmp_path


def test_each_role_has_a_key_pair_and_only_the_owner_reads_secrets(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert names == {f"{role}.{half}" for role in keys.ROLES for half in ("public", "secret")}
    assert {p.stat().st_mode & 0o777 for p in directory.glob("*.secret")} == {0o600}
    assert len({p.read_bytes() for p in directory.iterdir()}) == 2 * len(keys.ROLES)


def test_the_broker_allows_the_keys_of_all_other_roles(directory: Path) -> None:
    broker = keys.read(directory, "broker")
    assert set(broker.allowed) == set(keys.ROLES[1:])
    for role in keys.ROLES[1:]:
        peer = keys.read(directory, role)
        own = (directory / f"{role}.public").read_bytes().strip()
        assert peer.public == {"broker": broker.public["broker"], role: own}
        assert broker.allowed[role] == {own} and not peer.allowed


def test_a_role_may_have_a_key_for_each_host(directory: Path) -> None:
    moved = keys.generate_for_host(directory, "worker", "host-1")
    assert {path.name for path in moved.iterdir()} == {
        *("broker.public", "worker.public", "worker.secret")
    }
    assert (moved / "worker.secret").stat().st_mode & 0o777 == 0o600
    host = keys.read(moved, "worker")
    role = keys.read(directory, "worker")
    both = {host.public["worker"], role.public["worker"]}
    assert len(both) == 2 and keys.read(directory, "broker").allowed["worker"] == both
    with pytest.raises(keys.KeysError, match="exists"):
        keys.generate_for_host(directory, "worker", "host-1")


def test_the_broker_follows_the_files(directory: Path) -> None:
    files = keys.KeyFiles(directory, "broker")
    first = files.keys
    assert files.read_again() is first
    keys.generate_for_host(directory, "worker", "host-1")
    assert len(files.read_again().allowed["worker"]) == 2
    (directory / "worker.public").unlink()
    assert files.read_again().allowed["worker"] == keys.read(directory, "broker").allowed["worker"]
    assert len(files.keys.allowed["worker"]) == 1
    # A key that is removed while another one is damaged.
    (directory / "broker.public").write_text("damaged")
    (directory / "worker.d" / "host-1.public").unlink()
    assert files.read_again().allowed["worker"] == frozenset()
    assert "broker.public does not hold a CURVE key" in str(files.error)
    assert files.keys.secret == first.secret


def test_a_folder_of_keys_that_is_deleted_meanwhile_allows_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = keys.KeyFiles(directory, "broker")
    keys.generate_for_host(directory, "worker", "host-1")
    assert len(files.read_again().allowed["worker"]) == 2
    monkeypatch.setattr(os, "scandir", without("worker.d"))
    assert len(files.read_again().allowed["worker"]) == 1


def test_the_broker_follows_the_modes_of_files(directory: Path) -> None:
    files = keys.KeyFiles(directory, "broker")
    for mode, usable in ((0o644, False), (0o600, True)):
        (directory / "broker.secret").chmod(mode)
        files.read_again()
        assert (files.error is None) is usable


def test_a_client_needs_its_pair_and_the_brokers_public_key_only(directory: Path) -> None:
    for name in ("broker.secret", "gateway.public", "gateway.secret", "persistence.public"):
        (directory / name).unlink()
    assert keys.read(directory, "worker")
    with pytest.raises(keys.KeysError, match=r"gateway\.public: No such file"):
        keys.read(directory, "gateway")


def test_secrets_are_not_shown(directory: Path) -> None:
    worker = keys.read(directory, "worker")
    assert worker.secret.decode() not in repr(worker)


@pytest.mark.parametrize("text", ["", "#" * 39, "#" * 40, "~" * 40, "0" * 41])
@pytest.mark.parametrize("name", ["broker.public", "worker.secret"])
def test_a_damaged_key_is_named(directory: Path, name: str, text: str) -> None:
    files = keys.KeyFiles(directory, "worker")
    (directory / name).write_text(text)
    with pytest.raises(keys.KeysError, match=rf"{name} does not hold a CURVE key"):
        keys.read(directory, "worker")
    first = files.keys
    assert files.read_again() == first and files.error is not None


def test_old_keys_are_not_overwritten(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(keys.KeysError, match="exists"):
        keys.generate(directory)
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 41, b'"' * 40, "é".encode() * 20])
def test_an_invalid_key_is_refused(directory: Path, content: bytes) -> None:
    (directory / "broker.public").write_bytes(content)
    with pytest.raises(keys.KeysError, match=r"broker\.public does not hold a CURVE key"):
        keys.read(directory, "worker")


def test_a_fifo_is_refused_at_once(directory: Path) -> None:
    (directory / "worker.secret").unlink()
    os.mkfifo(directory / "worker.secret")
    with pytest.raises(keys.KeysError, match=r"worker\.secret: not a regular file"):
        keys.read(directory, "worker")


def test_a_secret_that_others_can_read_is_refused(directory: Path) -> None:
    (directory / "broker.secret").chmod(0o640)
    with pytest.raises(keys.KeysError, match="chmod 600"):
        keys.read(directory, "broker")


@pytest.mark.parametrize(
    ("owner", "mode", "refused"),
    [
        (10001, 0o600, False),
        (10001, 0o640, True),
        (0, 0o640, False),
        (0, 0o660, True),
        (0, 0o644, True),
    ],
)
def test_the_group_may_read_a_secret_of_root(owner: int, mode: int, refused: bool) -> None:
    status = os.stat_result((mode, 0, 0, 0, owner, 0, 0, 0, 0, 0))
    assert keys.others_can_read(status, 10001) is refused
    assert keys.others_can_read(status, 0) is (mode != 0o600)


def test_halves_of_different_pairs_are_refused(directory: Path) -> None:
    (directory / "worker.public").write_bytes((directory / "gateway.public").read_bytes())
    with pytest.raises(keys.KeysError, match=r"worker\.public are not a pair"):
        keys.read(directory, "worker")
