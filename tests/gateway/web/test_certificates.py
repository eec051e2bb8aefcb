"""Certificate files: what is read, what is refused, and what follows from a change."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.web.certificates import CertificateError, Certificates, load_certificates


class Files(NamedTuple):
    certificate: Path
    key: Path


def write_certificate(
    folder: Path, name: str, password: bytes | None = None, days: float = 30
) -> Files:
    """Write a self-signed certificate for 127.0.0.1 and localhost, in place of the one before."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address, x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    files = Files(folder / "server.pem", folder / "server.key")
    contents = (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        ),
    )
    for path, content in zip(files, contents, strict=True):
        replaced = path.with_suffix(".new")
        replaced.write_bytes(content)
        replaced.replace(path)
    return files


def name_served(certificates: Certificates, trusted: Path) -> str:
    """Shake hands in memory, and return the name in the certificate that the client gets."""
    client = ssl.create_default_context(cafile=trusted)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client_side.getpeercert()
    assert found is not None
    subject: Any = found["subject"]
    return str(dict(pair for (pair,) in subject)["commonName"])


def test_the_new_certificate_is_used_once_both_files_have_changed(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "first")
    certificates = Certificates(*files)
    assert name_served(certificates, files.certificate) == "first"
    old = files.certificate.rename(tmp_path / "old.pem")
    with structlog.testing.capture_logs() as logs:
        write_certificate(tmp_path, "second")
        new_key = files.key.rename(tmp_path / "new.key")
        certificates.read_again()
        assert name_served(certificates, old) == "first"
        new_key.rename(files.key)
        certificates.read_again()
        certificates.read_again()
    assert name_served(certificates, files.certificate) == "second"
    assert [log["event"] for log in logs] == ["certificate_not_read", "certificate_read"]


def test_files_are_read_again_after_a_change_of_their_mode(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "a")
    certificates = Certificates(*files)
    with structlog.testing.capture_logs() as logs:
        certificates.read_again()
        assert logs == []
        files.key.chmod(0o400)
        certificates.read_again()
    assert [log["event"] for log in logs] == ["certificate_read"]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one, other = (write_certificate(tmp_path / folder, folder) for folder in ("a", "b"))
    for certificate, key in (
        (one.certificate, other.key),
        (one.key, one.certificate),
        (tmp_path / "missing", one.key),
    ):
        with pytest.raises(CertificateError):
            Certificates(certificate, key)
    protected = write_certificate(tmp_path, "c", password=b"secret")
    with pytest.raises(CertificateError, match="private key without a password"):
        Certificates(*protected)


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_fifo_is_refused_at_once(tmp_path: Path, name: str) -> None:
    files = write_certificate(tmp_path, "a")
    path: Path = getattr(files, name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CertificateError, match=f"{path}: not a regular file"):
        Certificates(*files)


@pytest.mark.parametrize(("days", "warnings"), [(-1, 1), (6, 1), (30, 0)])
def test_a_certificate_that_expires_soon_is_logged(
    tmp_path: Path, days: float, warnings: int
) -> None:
    with structlog.testing.capture_logs() as logs:
        Certificates(*write_certificate(tmp_path, "a", days=days))
    assert [log["event"] for log in logs] == ["certificate_expires"] * warnings


def test_a_certificate_that_nobody_renews_is_logged_while_it_is_in_use(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    with structlog.testing.capture_logs() as logs:
        certificates = Certificates(*write_certificate(tmp_path, "a", days=30))
        for days in (1, 22, 24, 25, 29, 31, 32):
            certificates.warn_of_end(now + datetime.timedelta(days=days))
            logs.append({"event": days, "log_level": ""})
        write_certificate(tmp_path, "b", days=60)
        certificates.read_again()
        certificates.warn_of_end(now + datetime.timedelta(days=54))
    expires = "certificate_expires"
    assert [log["event"] for log in logs] == [
        *(1, 22, expires, 24, 25, 29, expires, 31, 32, "certificate_read", expires)
    ]


def test_without_the_settings_there_is_no_tls_and_wrong_files_end_the_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_certificates(None, None) is None
    with pytest.raises(SystemExit) as ended:
        load_certificates(tmp_path / "missing", tmp_path / "missing")
    assert ended.value.code == os.EX_CONFIG
    assert capsys.readouterr().err.startswith("error: TLS_CERT_FILE, TLS_KEY_FILE: ")


def test_versions_before_1_2_are_not_spoken(tmp_path: Path) -> None:
    context = Certificates(*write_certificate(tmp_path, "x")).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
