"""Decodes containers in child processes, never in the gateway's own process.

``gateway.audio.decoder_process`` is the program of the children, and defines the protocol. Each
stream has a child of its own, so a file that crashes, hangs or takes over its decoder affects no
other stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import structlog

from gateway.audio import decoder_process
from gateway.audio.formats import BY_CONTAINER, AudioError, Container
from gateway.audio.timeline import Notice
from gateway.telemetry.metrics import DECODER_FAILURES, DECODERS
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FEED_AUDIO_S_MAX: Final = 1_800
"""Longest audio of one chunk. A chunk of a few kilobytes can contain hours of silence, which would
all be in memory at once."""
ANSWER_TIMEOUT_S: Final = decoder_process.STEP_S_MAX + 5
"""Timeout of each message of a child, whose own alarm ends it before."""
PART_S: Final = 60
"""Audio of a file's end that is taken from its child at once. A file whose index is at its end is
decoded when all of it is there, and hours of it would all be in memory."""
CLOSE_TIMEOUT_S: Final = 2.0
_NOTICE_CODES: Final = ("truncated", "loudest_only")
_NOTICE_CHARS_MAX: Final = 200
_FAILURE_CODES: Final = frozenset({"bad_audio", "audio_too_long"})

assert decoder_process.SAMPLE_RATE_HZ == SAMPLE_RATE_HZ


class DecoderPool:
    """The decoder processes of one gateway, at most ``decoders_max`` at a time.

    ``start`` is optional: without it the first stream waits about 0.3 s for the start. ``close``
    ends every process, and streams that are still open fail.
    """

    def __init__(self, decoders_max: int) -> None:
        self._decoders_max = decoders_max
        self._streams: set[EncodedStream] = set()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Start the process that forks decoders, if it is not running."""
        async with self._starting:
            if self._server is not None and self._server.poll() is None:
                return
            assert not self._closed
            await self._end_server()
            self._control, theirs = socket.socketpair()
            self._control.setblocking(False)
            with theirs:
                self._server = await asyncio.to_thread(_start_server, theirs)

    async def open(self, container: Container | None) -> EncodedStream:
        """Open a stream of ``container``; None: libavformat finds it. The caller must ``close`` it.

        Raises:
            AudioError: ``overloaded``, because ``decoders_max`` streams are open, or the kernel has
                no descriptor, process or memory left.
        """
        if len(self._streams) >= self._decoders_max:
            DECODER_FAILURES.labels("overloaded").inc()
            raise AudioError(
                "overloaded", "too many encoded streams are being decoded; try again later"
            )
        stream = EncodedStream(self)
        # Added before the first await, so that the limit holds.
        self._streams.add(stream)
        DECODERS.set(len(self._streams))
        try:
            await self.start()
            await stream.connect(self._new_child(), container)
        except BaseException as error:
            await stream.close()
            if not isinstance(error, OSError):
                raise
            DECODER_FAILURES.labels("no_process").inc()
            structlog.get_logger().error("decoder_not_started", error=str(error))
            raise AudioError("overloaded", "no decoder can be started; try again later") from error
        return stream

    def forget(self, stream: EncodedStream) -> None:
        """Remove ``stream``, which is closed."""
        self._streams.discard(stream)
        DECODERS.set(len(self._streams))

    async def close(self) -> None:
        self._closed = True
        for stream in tuple(self._streams):
            await stream.close()
        await self._end_server()

    def _new_child(self) -> socket.socket:
        """Return the connection to a new decoder."""
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    async def _end_server(self) -> None:
        server, control = self._server, self._control
        self._server = self._control = None
        if control is not None:
            control.close()
        if server is None:
            return
        try:
            # Ends by itself, with its children, now that the control socket is closed.
            await asyncio.to_thread(server.wait, CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Its session is its own: nothing but decoders is in its process group.
            os.killpg(server.pid, 9)
            await asyncio.to_thread(server.wait)


def _opening(container: Container | None) -> decoder_process.Opening:
    if container is None:
        return decoder_process.Opening(decoder_process.PROBE, 2_048, 1 << 18, needs_all=0)
    known = BY_CONTAINER[container]
    return decoder_process.Opening(
        container, known.block_bytes, known.probe_bytes, int(known.needs_all)
    )


def _start_server(control: socket.socket) -> subprocess.Popen[bytes]:
    # -P: do not import from the current folder.
    root = Path(decoder_process.__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", decoder_process.__name__],
        # One thread: its forks have only that one.
        env={**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"},
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


class EncodedStream:
    """One encoded file or live stream being decoded to mono s16le PCM at 16 kHz.

    The caller feeds it in order, one call at a time, ends it with ``finish``, and must ``close``
    it in any case. After an error or a cancelled call only ``close`` is left.
    """

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._usable = False
        self.ended = False
        """The child has found the end of the container, and given all of its audio."""
        self._ending = False
        """END was sent, and not all that follows it was read."""
        self.notices: list[Notice] = []
        """Known at the end."""

    async def connect(self, connection: socket.socket, container: Container | None) -> None:
        """Use ``connection`` to a new child. The pool calls this."""
        self._reader, self._writer = await asyncio.open_connection(sock=connection)
        self._usable = True
        self._send(decoder_process.OPEN, " ".join(map(str, _opening(container))).encode(), 0)

    async def feed(self, data: bytes, samples_max: int) -> bytes:
        """Return the PCM that can be decoded from the bytes so far and was not returned before.

        Raises:
            AudioError: ``bad_audio``, or ``audio_too_long`` for more than ``samples_max`` samples
                or ``FEED_AUDIO_S_MAX``. Its ``pcm`` is the audio before the fault.
        """
        if self.ended:
            if not data.strip(b"\0"):  # Padding.
                return b""
            raise AudioError("bad_audio", "data after the end of the audio stream")
        samples_max = min(samples_max, FEED_AUDIO_S_MAX * SAMPLE_RATE_HZ)
        self._send(decoder_process.DATA, data, samples_max)
        return await self._exchange(samples_max, decoder_process.MORE)

    async def finish(self, samples_max: int) -> bytes:
        """End the stream and return the next part of the rest of its PCM, about ``PART_S`` of it.
        Call it until it has ``ended``. Errors as for ``feed``."""
        if self.ended:
            return b""
        if not self._ending:
            self._send(decoder_process.END, b"", samples_max)
            self._ending = True
        return await self._exchange(samples_max, None)

    async def close(self) -> None:
        """End the child. Safe to call at any time and repeatedly."""
        self._usable = False
        writer, self._writer = self._writer, None
        self._pool.forget(self)
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _send(self, kind: bytes, payload: bytes, samples_max: int) -> None:
        assert self._usable and self._writer is not None, "the stream is closed or has failed"
        self._writer.write(decoder_process.REQUEST.pack(kind, len(payload), samples_max) + payload)

    async def _exchange(self, samples_max: int, wanted: bytes | None) -> bytes:
        """Return the PCM before the message ``wanted``; None: about ``PART_S`` of it."""
        assert self._usable and self._writer is not None, "the stream is closed or has failed"
        self._usable = False
        pcm = bytearray()
        part_bytes = PART_S * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
        answer = decoder_process.PCM
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S) as limit:
                await self._writer.drain()
                while answer == decoder_process.PCM and (wanted or len(pcm) < part_bytes):
                    answer = await self._receive(pcm, samples_max * BYTES_PER_SAMPLE)
                    limit.reschedule(asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S)
        except (OSError, EOFError) as error:
            # TimeoutError is an OSError. EOFError: the child crashed or exceeded a limit.
            DECODER_FAILURES.labels("crashed").inc()
            structlog.get_logger().warning("decoder_crashed", error=type(error).__name__)
            raise AudioError("bad_audio", "the audio could not be decoded", bytes(pcm)) from error
        self.ended = answer == decoder_process.ENDED
        if answer not in (wanted or decoder_process.PCM, decoder_process.ENDED):
            raise self._failure(answer, bytes(pcm))
        self._usable = True
        return bytes(pcm)

    async def _receive(self, pcm: bytearray, pcm_bytes_max: int) -> bytes:
        """Receive a message, append its PCM to ``pcm``, and return its kind, or its failure."""
        assert self._reader is not None
        head = await self._reader.readexactly(decoder_process.REPLY.size)
        kind: bytes
        length: int
        kind, length = decoder_process.REPLY.unpack(head)
        # The file may have taken over the child: trust no length.
        length_max = decoder_process.REPLY_BYTES_MAX
        if length > length_max or len(pcm) + length > pcm_bytes_max + length_max:
            raise EOFError
        payload = await self._reader.readexactly(length)
        if kind == decoder_process.PCM:
            pcm += payload
        elif kind == decoder_process.NOTICE:
            code, _, message = payload.decode(errors="replace").partition(":")
            if code in _NOTICE_CODES and len(self.notices) < len(_NOTICE_CODES):
                self.notices.append(Notice(code, message[:_NOTICE_CHARS_MAX]))
            return decoder_process.PCM
        return kind + payload if kind == decoder_process.FAILED else kind

    @staticmethod
    def _failure(answer: bytes, pcm: bytes) -> AudioError:
        code, _, message = answer[1:].decode(errors="replace").partition(":")
        if answer[:1] != decoder_process.FAILED or code not in _FAILURE_CODES:
            code, message = "bad_audio", decoder_process.CORRUPT
        DECODER_FAILURES.labels(code).inc()
        return AudioError(code, message[:_NOTICE_CHARS_MAX], pcm)
