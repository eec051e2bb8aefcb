"""TLS by certificate files, ``TLS_CERT_FILE`` and ``TLS_KEY_FILE``. They are read again when they
change; open connections keep their certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from runtime.settings import fail
from wire.keys import require_regular, state_of

WARN_BEFORE: Final = timedelta(days=7)
CHECK_EVERY_S: Final = 1.0
"""Interval of checks for changed files."""


class CertificateError(ValueError):
    """The files are missing or do not belong together. The text is for the operator."""


class Certificates:
    """``context`` is for the listening sockets. ``follow`` renews its certificate."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """
        Raises:
            CertificateError: the files cannot be used.
        """
        self._certificate = certificate
        self._key = key
        self._state = state_of((certificate, key))
        self._end: datetime | None = None
        """Of the certificate's validity; None: not known."""
        self._warn_at: datetime | None = None
        """When its end is logged next; None: never."""
        self.context = self._load()
        self.warn_of_end(datetime.now(UTC))

    async def follow(self) -> None:
        """Read the files again when they have changed, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            self.read_again()
            self.warn_of_end(datetime.now(UTC))

    def read_again(self) -> None:
        """Use the files from the next connection on, if they have changed. While they do not belong
        together, because one is not written yet, the old ones are used."""
        state = state_of((self._certificate, self._key))
        if state == self._state:
            return
        self._state = state
        log = structlog.get_logger()
        try:
            self._load()  # Into another context: a failure would leave this one half changed.
            self.context.load_cert_chain(self._certificate, self._key, password="")
        except (CertificateError, OSError) as error:
            log.error("certificate_not_read", error=str(error))
            return
        log.info("certificate_read", file=str(self._certificate))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            for path in (self._certificate, self._key):
                require_regular(path)
            # A given password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except ssl.SSLError as error:
            raise CertificateError(
                f"{self._certificate} must hold a certificate chain in PEM, and {self._key} its "
                f"private key without a password: {error.reason or error}"
            ) from None
        except OSError as error:
            names = error.filename or f"{self._certificate} and {self._key}"
            raise CertificateError(f"{names}: {error.strerror}") from None
        self._note_end()
        return context

    def _note_end(self) -> None:
        certificate = self._certificate.read_bytes()
        self._end = self._warn_at = None
        with contextlib.suppress(ValueError):  # Of a form that OpenSSL can use.
            self._end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
            self._warn_at = self._end - WARN_BEFORE

    def warn_of_end(self, now: datetime) -> None:
        """Log that the certificate will expire soon, and once more that it has expired. Only
        clients refuse it."""
        if self._end is None or self._warn_at is None or now < self._warn_at:
            return
        self._warn_at = self._end if now < self._end else None
        structlog.get_logger().warning(
            "certificate_expires", file=str(self._certificate), at=self._end.isoformat()
        )


def load_certificates(certificate: Path | None, key: Path | None) -> Certificates | None:
    """Return the certificates of the settings; None without them. End the process with an error
    message if they cannot be used."""
    if certificate is None or key is None:
        return None
    try:
        return Certificates(certificate, key)
    except CertificateError as error:
        fail(f"TLS_CERT_FILE, TLS_KEY_FILE: {error}")
