"""Records on disk that were not confirmed when a gateway stopped, for the next gateway to send.

A gateway writes at most one file, when it stops, and never changes it. Each gateway that starts
locks the files that no other has locked, sends their records until all are stored, and then removes
the files. If it is killed before, its locks are released and the next gateway sends everything
again. That is safe because storing a record is idempotent.

File format: ``magic, entries, trailer``. An entry is a length and the two frames of a ``Record``
(``wire.codec``). The trailer holds the number of entries and a CRC-32. SQLite was measured as an
alternative, with 200,000 records of 0.6 kB: it reads and writes as fast (with WAL it writes a
quarter slower), takes as much space, and needs an additional checksum to detect a changed byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.storage import durable
from gateway.telemetry.metrics import SPOOL_DAMAGED, SPOOL_DROPPED, SPOOLED
from wire import codec
from wire.messages import Record, StoredKey

SPOOL_BYTES_MAX = 256 << 20
"""Size of all files together. Records beyond it are lost, counted and logged."""
_MAGIC = b"asr-spool-1\n"
_LENGTH = struct.Struct(">I")
_TRAILER = struct.Struct(">III")
_END = 0xFFFF_FFFF
"""In place of an entry's length, before count and checksum."""
_TAG_BYTES = 2


class Spool:
    """``take`` at start, ``confirm`` every stored key, ``write`` and ``close`` when stopping."""

    def __init__(self, directory: Path, gateway_id: str) -> None:
        self._directory = directory
        self._gateway_id = gateway_id
        self._held: dict[Path, tuple[BinaryIO, set[StoredKey]]] = {}
        self._log = structlog.get_logger()

    def __len__(self) -> int:
        """Number of files with records that are not stored yet."""
        return len(self._held)

    def take(self) -> list[Record]:
        """Lock every file that no other gateway holds, and return the records. The caller sends
        them until they are stored. A file that cannot be read is counted and left out."""
        durable.remove_unfinished(self._directory)
        records: list[Record] = []
        for path in sorted(self._directory.glob("*.spool")):
            try:
                file = durable.locked(path, "rb")
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
        """Note that ``keys`` are stored, and remove each file whose records all are."""
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
        """Write ``records`` to this gateway's file, except those already in a file that it holds.

        Returns the number written. Records that do not fit, or that the disk does not take, are
        counted and logged.
        """
        held = {key for _, left in self._held.values() for key in left}
        new = [record for record in records if record.key not in held]
        if not new:
            return 0
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = self._directory.iterdir()
            used = sum(durable.size_of(each) for each in files if each.suffix != durable.TEMPORARY)
            content, count = _content(new, SPOOL_BYTES_MAX - used)
            with durable.new_file(self._directory / f"{self._gateway_id}.spool") as file:
                file.write(content)
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
        """Release the files that are not stored yet to other gateways."""
        for file, _ in self._held.values():
            file.close()
        self._held.clear()


def _content(records: list[Record], bytes_max: int) -> tuple[bytes, int]:
    """A file of the first ``records``, as many as fit, and their number."""
    entries, count = bytearray(), 0
    for record in records:
        entry = b"".join(codec.encode(record))
        if len(entries) + len(entry) + _LENGTH.size > bytes_max:
            break
        entries += _LENGTH.pack(len(entry)) + entry
        count += 1
    return _MAGIC + bytes(entries) + _TRAILER.pack(_END, count, zlib.crc32(entries)), count


def _parse(data: bytes) -> Iterator[Record]:
    """The records of a file, also of an earlier release. Raises ``WireError`` or ``struct.error``
    if it is damaged."""
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _TRAILER.size:
        raise codec.WireError("not a spool file")
    entries = data[len(_MAGIC) : -_TRAILER.size]
    end, count, checksum = _TRAILER.unpack(data[-_TRAILER.size :])
    if end != _END or checksum != zlib.crc32(entries):
        raise codec.WireError("wrong trailer or checksum")
    offset = 0
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(entries, offset)
        offset += _LENGTH.size
        # Not the entry's own tag: it holds the protocol version of the release that wrote it.
        header = entries[offset + _TAG_BYTES : offset + length]
        record = codec.decode([codec.tag_of(Record), header])
        assert isinstance(record, Record)
        yield record
        offset += length
