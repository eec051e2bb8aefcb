from __future__ import annotations

from pathlib import Path

import pytest

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
    broker = keys.read(directory, "broker").public
    assert set(broker) == set(keys.ROLES)
    for role in keys.ROLES[1:]:
        peer = keys.read(directory, role).public
        assert peer == {"broker": broker["broker"], role: broker[role]}
        assert broker[role] == (directory / f"{role}.public").read_bytes().strip()


def test_a_client_needs_its_pair_and_the_brokers_public_key_only(directory: Path) -> None:
    for name in ("broker.secret", "gateway.public", "gateway.secret", "persistence.public"):
        (directory / name).unlink()
    assert keys.read(directory, "worker")
    with pytest.raises(keys.KeysError, match=r"gateway\.public: No such file"):
        keys.read(directory, "gateway")


def test_secrets_are_not_shown(directory: Path) -> None:
    worker = keys.read(directory, "worker")
    assert worker.secret.decode() not in repr(worker)


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


def test_a_secret_that_others_can_read_is_refused(directory: Path) -> None:
    (directory / "broker.secret").chmod(0o640)
    with pytest.raises(keys.KeysError, match="chmod 600"):
        keys.read(directory, "broker")


def test_halves_of_different_pairs_are_refused(directory: Path) -> None:
    (directory / "worker.public").write_bytes((directory / "gateway.public").read_bytes())
    with pytest.raises(keys.KeysError, match=r"worker\.public are not a pair"):
        keys.read(directory, "worker")
