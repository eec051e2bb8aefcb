"""The decoder process: it forks a child for each encoded stream.

It is started as a script and imports nothing of this project. The parent
(``gateway.audio.decoder_pool``) passes a control socket as standard input, and a socket for each
stream over it (SCM_RIGHTS). PyAV is imported once; children are forks that share this memory and
start in milliseconds. When the control socket closes, which the gateway's end implies, the process
ends its children and itself.

A child parses hostile input, so it is confined: limits of memory, processor time and wall time, and
no new file descriptors, hence neither files nor network. libavformat does not guess the container.

Protocol of a stream, integers in network order:

* to the child: ``kind, length, samples_max`` and ``length`` bytes. The first message is OPEN with
  the container's name and the block size in bytes; then DATA, and END after the last.
* from the child, after DATA or END: any number of PCM messages, then one of MORE (all bytes are
  consumed), ENDED (after END, or at the end of the container) or FAILED with ``code:message``, as
  ``kind, length`` and the bytes.

A child answers a message with at most ``samples_max`` samples, and fails beyond them.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import signal
import socket
import struct
import traceback
import wave
from collections.abc import Callable
from typing import Any, NoReturn

import av

OPEN, DATA, END = b"O", b"D", b"E"
PCM, MORE, ENDED, FAILED = b"P", b"M", b"N", b"F"
REQUEST = struct.Struct("!cIQ")
REPLY = struct.Struct("!cI")

SAMPLE_RATE_HZ = 16_000
MEMORY_BYTES_MAX = 512 << 20
"""Address space of a child (RLIMIT_AS). Libraries and interpreter use about 140 MB of it."""
CPU_S_MAX = 600
"""Processor time of a child (RLIMIT_CPU), enough for hours of audio."""
EXCHANGE_S_MAX = 15
"""Wall time for one message; then SIGALRM ends the child."""
SOUNDLESS_BYTES_MAX = 4 << 20
"""Consecutive bytes without audio; then the stream is corrupt. libavformat would search for a valid
frame without end. The limit is high because MP3 files may begin with a picture."""
CORRUPT = "the audio data is corrupt, or not in its container's format"


class AudioTooLongError(Exception):
    """The exchange exceeds the samples that the parent allows."""


class Stream:
    """The child's end of a stream, and the file object that libavformat reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        kind, opening = self._receive()
        assert kind == OPEN
        container, block_bytes = opening.split()
        self.container = container.decode()
        self._block_bytes = int(block_bytes)
        self._data = bytearray()
        self._begin = 0
        self._begun = False
        self._no_more = False
        self._soundless_bytes = 0
        self._heard_anything = False
        self._gave_up = False

    @property
    def is_corrupt(self) -> bool:
        """libavformat found no fault, and no audio either, or none for too long."""
        return self._gave_up or not self._heard_anything

    def read(self, size: int) -> bytes:
        """Return one block, or the rest at the end. Blocks until there is one. PyAV calls this."""
        size = min(size, self._block_bytes)
        while len(self._data) - self._begin < size and not self._no_more:
            self._await_data()
        block = bytes(self._data[self._begin : self._begin + size])
        self._begin += len(block)
        return block

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        try:
            self._connection.sendall(REPLY.pack(kind, len(payload)) + payload)
        except ConnectionError:
            hang_up()

    def send_pcm(self, frames: list[Any]) -> None:
        for frame in frames:
            self._heard_anything = True
            self._soundless_bytes = 0
            self._samples_left -= frame.samples
            if self._samples_left < 0:
                raise AudioTooLongError
            self.send(PCM, bytes(frame.planes[0])[: 2 * frame.samples])

    def _await_data(self) -> None:
        if self._begun:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.send(MORE)
        kind, payload = self._receive()
        signal.setitimer(signal.ITIMER_REAL, EXCHANGE_S_MAX)
        self._begun = True
        self._soundless_bytes += len(payload)
        # For libavformat corrupt data ends here.
        self._gave_up = self._soundless_bytes > SOUNDLESS_BYTES_MAX
        self._no_more = kind == END or self._gave_up
        del self._data[: self._begin]
        self._begin = 0
        self._data += payload

    def _receive(self) -> tuple[bytes, bytes]:
        kind, length, self._samples_left = REQUEST.unpack(self._receive_exactly(REQUEST.size))
        return kind, self._receive_exactly(length)

    def _receive_exactly(self, length: int) -> bytes:
        with contextlib.suppress(ConnectionError):
            received = self._connection.recv(length, socket.MSG_WAITALL)
            if len(received) == length:
                return received
        hang_up()


def hang_up() -> NoReturn:
    """The parent has closed the stream. Exit at once, because PyAV takes any exception in a call
    from libavformat for a fault of the file."""
    os._exit(0)


def decode(file: Any, container_name: str, use_frames: Callable[[list[Any]], None]) -> None:
    """Decode ``file`` to its end and pass its audio on, mono s16 at 16 kHz."""
    container = av.open(
        file,
        mode="r",
        format=container_name,
        # Enough to find the codec. The default would delay a live stream by seconds.
        options={"probesize": "2048", "analyzeduration": "0"},
    )
    if not container.streams.audio:
        raise av.error.InvalidDataError(0, "no audio stream")
    audio = container.streams.audio[0]
    audio.codec_context.thread_count = 1
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
    for packet in container.demux(audio):
        for frame in packet.decode():
            use_frames(resampler.resample(frame))
    use_frames(resampler.resample(None))


def rehearse() -> None:
    """Decode a silent WAV file: PyAV imports much of itself on first use, and children cannot open
    files."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(bytes(4 * 800))
    file.seek(0)
    decode(file, "wav", lambda frames: None)


def run_child(connection: socket.socket) -> None:
    """Decode one stream. This is all that a child does."""
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    confine()
    stream = Stream(connection)
    try:
        decode(stream, stream.container, stream.send_pcm)
        if stream.is_corrupt:
            raise av.error.InvalidDataError(0, "no audio")
    except AudioTooLongError:
        stream.send(FAILED, b"audio_too_long:the audio is longer than allowed")
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        stream.send(FAILED, f"bad_audio:{CORRUPT} ({type(error).__name__})".encode())
    else:
        stream.send(ENDED)


def confine() -> None:
    """Restrict this process to what decoding needs."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, CPU_S_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(limit, (value, value))


def serve(control: socket.socket) -> None:
    """Fork a child for every socket received over ``control``, until that closes."""
    children: set[int] = set()

    def reap(_number: int, _frame: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                children.discard(pid)

    signal.signal(signal.SIGCHLD, reap)
    # Existing objects stay in pages that the children share.
    gc.collect()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            break
        for descriptor in descriptors:
            # Block SIGCHLD: a child may exit before its process id is stored.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = fork_child(control, descriptor)
            if pid:
                children.add(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def fork_child(control: socket.socket, descriptor: int) -> int:
    """Return the child's process id; 0 if the fork failed, and then the socket closes."""
    connection = socket.socket(fileno=descriptor)
    try:
        pid = os.fork()
    except OSError:
        pid = 0
    else:
        if pid == 0:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                control.close()
                run_child(connection)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
    connection.close()
    return pid


if __name__ == "__main__":
    # The gateway decides when to end; Ctrl-C and honcho's SIGTERM reach this process as well.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    av.logging.set_level(None)
    rehearse()
    serve(socket.socket(fileno=0))
