"""Records that were not confirmed when a gateway had to end, on disk for the next one that starts.

A file is written once, whole, and then only read: ``magic, entries, trailer``. An entry is a
length and the frames of a ``Record``; the trailer holds their number and a checksum. Whoever has
locked a file sends its records until all are stored, and removes it then. A gateway that dies
meanwhile loses its lock, and the next one begins again, which does no harm: storing twice is
storing once.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.telemetry.metrics import SPOOL_DAMAGED, SPOOL_DROPPED, SPOOLED
from wire import codec
from wire.messages import Record, StoredKey

SPOOL_BYTES_MAX = 256 << 20
"""In all files together; what does not fit is lost, counted and logged."""
TEMPORARY = ".tmp"
"""Suffix of a file that is being written."""
_MAGIC = b"asr-spool-1\n"
_LENGTH = struct.Struct(">I")
_TRAILER = struct.Struct(">III")
_END = 0xFFFF_FFFF
"""Where an entry's length would stand, before count and checksum."""


class Spool:
    """``take`` at the start, ``confirm`` what is stored, ``write`` and ``close`` at the end."""

    def __init__(self, directory: Path, gateway_id: str) -> None:
        self._table = directory
        self._gateway_id = gateway_id
        self._held: dict[Path, tuple[BinaryIO, set[StoredKey]]] = {}
        self._log = structlog.get_logger()

    def take(self) -> list[Record]:
        """Records of all files that no other gateway has. Send them until they are stored."""
        records: list[Record] = []
        for path in sorted(self._table.glob("*.spool")):
            try:
                file = _lock(path)
                if file is None:
                    continue
                data = file.read()
            except OSError as error:
                SPOOL_DAMAGED.inc()
                self._log.error("spool_unreadable", file=path.name, reason=error.strerror)
                continue
            try:
                found = list(_parse(data))
            except (codec.WireError, struct.error) as error:
                SPOOL_DAMAGED.inc()
                self._log.error("spool_damaged", file=path.name, reason=str(error))
                path.rename(path.with_suffix(".damaged"))
                file.close()
                continue
            self._held[path] = file, {record.key for record in found}
            self._log.info("spool_taken", file=path.name, records=len(found))
            records += found
        SPOOLED.labels("read").inc(len(records))
        self.confirm([])
        return records

    def confirm(self, keys: Iterable[StoredKey]) -> None:
        """These are stored. A file of which all is stored is removed."""
        if not self._held:
            return
        stored = set(keys)
        for path, (file, left) in list(self._held.items()):
            left -= stored
            if not left:
                path.unlink()
                file.close()
                del self._held[path]
                self._log.info("spool_emptied", file=path.name)

    def write(self, records: Iterable[Record]) -> int:
        """Keep ``records``, except those that are in a file already. Returns how many it wrote."""
        held = {key for _, left in self._held.values() for key in left}
        new = [record for record in records if record.key not in held]
        if not new:
            return 0
        try:
            content, count = self._content(new)
            self._write(content)
        except OSError as error:
            SPOOL_DROPPED.labels("disk").inc(len(new))
            self._log.error("spool_failed", records=len(new), error=error.strerror)
            return 0
        if count < len(new):
            SPOOL_DROPPED.labels("full").inc(len(new) - count)
            self._log.error("spool_full", records_lost=len(new) - count)
        SPOOLED.labels("written").inc(count)
        self._log.warning("records_spooled", records=count)
        return count

    def close(self) -> None:
        """Let other gateways have what is not stored yet."""
        for file, _ in self._held.values():
            file.close()
        self._held.clear()

    def _content(self, records: list[Record]) -> tuple[bytes, int]:
        self._table.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = (path for path in self._table.iterdir() if path.suffix != TEMPORARY)
        left = SPOOL_BYTES_MAX - sum(map(_size, whole))
        content, count = bytearray(), 0
        for record in records:
            entry = b"".join(codec.encode(record))
            if len(content) + len(entry) + _LENGTH.size > left:
                break
            content += _LENGTH.pack(len(entry)) + entry
            count += 1
        trailer = _TRAILER.pack(_END, count, zlib.crc32(content))
        return _MAGIC + bytes(content) + trailer, count

    def _write(self, content: bytes) -> None:
        path = self._table / f"{self._gateway_id}.spool"
        temporary = path.with_suffix(TEMPORARY)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(self._table, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _size(path: Path) -> int:
    """0 if it is gone: another gateway has just stored all of it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _lock(path: Path) -> BinaryIO | None:
    """The opened file, locked; None if it is another gateway's, or gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have removed it between our opening and our locking it.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        file.close()
        return None
    file.close()
    return None


def _parse(data: bytes) -> Iterator[Record]:
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _TRAILER.size:
        raise codec.WireError("not a spool file")
    content = data[len(_MAGIC) : -_TRAILER.size]
    end, count, checksum = _TRAILER.unpack(data[-_TRAILER.size :])
    if end != _END or checksum != zlib.crc32(content):
        raise codec.WireError("its end or its checksum is wrong")
    place = 0
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(content, place)
        entry = content[place + _LENGTH.size : place + _LENGTH.size + length]
        place += _LENGTH.size + length
        message = codec.decode([entry[:2], entry[2:]])
        if not isinstance(message, Record):
            raise codec.WireError("an entry is not a record")
        yield message
