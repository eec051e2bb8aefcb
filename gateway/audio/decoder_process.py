"""The decoder process: it forks a child for each encoded stream.

It imports nothing of this project but small cores of ``gateway.audio``. The parent
(``gateway.audio.decoder_pool``) passes a control socket as standard input, and a socket for each
stream over it (SCM_RIGHTS). PyAV is imported once; children are forks that share this memory and
start in milliseconds. When the control socket closes, which the gateway's end implies, the process
ends its children and itself.

A child parses hostile input, so it is confined: limits of memory, processor time and wall time, and
no new file descriptors, hence neither files nor network. libavformat guesses the container only of
streams opened as ``PROBE``, among ``PROBED``.

Protocol of a stream, integers in network order:

* to the child: ``kind, length, samples_max`` and ``length`` bytes. The first message is OPEN with
  the fields of ``Opening``, separated by spaces; then DATA, and END after the last.
* from the child, after DATA or END: any number of PCM messages, then one of MORE (all bytes are
  consumed), ENDED (after END, or at the end of the container) or FAILED with ``code:message``, as
  ``kind, length`` and the bytes. Before ENDED may be NOTICE messages with ``code:message``, about
  audio of the file that was not used, or did not arrive. The parent may leave PCM unread for a
  while: the child waits.

A child answers a message with at most ``samples_max`` samples, and fails beyond them.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import resource
import signal
import socket
import struct
import traceback
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import av
import av.subtitles.codeccontext
import av.subtitles.subtitle
import numpy as np

from gateway.audio.downmix import Downmix, notice, to_s16
from gateway.audio.file_units import mov_box, tag_bytes
from gateway.audio.frames import mp3_frame, mp3_frame_s, xing
from gateway.audio.truncation import missing

OPEN, DATA, END = b"O", b"D", b"E"
PCM, MORE, ENDED, FAILED, NOTICE = b"P", b"M", b"N", b"F", b"I"
REQUEST = struct.Struct("!cIQ")
REPLY = struct.Struct("!cI")

SAMPLE_RATE_HZ = 16_000
MEMORY_BYTES_MAX = 640 << 20
"""Address space of a child (RLIMIT_AS). Libraries and interpreter use about 200 MB of it."""
CPU_S_MAX = 600
"""Processor time of a child (RLIMIT_CPU), enough for hours of audio."""
STEP_S_MAX = 15
"""Wall time from one message to the next, of either side; then SIGALRM ends the child. It does not
run while the child waits for the parent."""
SOUNDLESS_BYTES_MAX = 64 << 20
"""Consecutive bytes without audio; then the file is refused. libavformat would search for a valid
frame without end. The limit is high because files may begin with pictures, or contain fonts."""
KEPT_BYTES_MAX = 128 << 20
"""Longest file that is kept until its end, because its index may be there."""
BAD_FRAMES_FIRST = 8
"""Frames at the beginning of a stream that may be undecodable: they can depend on earlier ones."""
TRAILING_BYTES_MAX = 2_048
"""Undecodable bytes behind the last frame, such as a part of one. Zeros and tags do not count."""
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
"""They may follow the audio of MP3 and AAC."""
CHECKED_CODECS = frozenset({"flac", "tta", "wavpack"})
"""Their frames have checksums, which libavcodec checks on request; damaged ones would be noise."""
XING_BYTES = 54
"""A frame's header, checksum, longest side information, and the numbers of frames and bytes."""
WASTE_BYTES = 1 << 16
TRACK_LAG_S_MAX = 2
"""A track that lags this much behind another counts as silent, for now."""
PAUSE_BYTES_MAX = 7
"""Longest frame of AMR without speech. Frames with speech have at least 13 bytes."""
PROBE = "probe"
PROBED = "ac3,adx,dsf,dtshd,eac3,gsm,hcom,loas,mpc,mpc8,mpeg,mpegts,mxf,nut,oma,qcp,shn,tak"
"""Containers without a signature in ``gateway.audio.formats`` that libavformat may find."""
PROBE_BYTES = 1 << 16
STREAMED = {
    "aiff": [(name + bytes(4), name + b"\x7f\0\0\0") for name in (b"FORM", b"SSND")],
    "w64": [(b"\xff" * 7 + b"\x7f", b"\xff" * 6 + bytes(2))],
}
"""Names and lengths in a header that libavformat writes to a pipe, and others that it can read."""
REPLY_BYTES_MAX = 1 << 20
"""A longer answer is sent in parts."""
CORRUPT = "the audio data is corrupt, or not in its container's format"


class AudioTooLongError(Exception):
    """The exchange exceeds the samples that the parent allows."""


class RefusedError(Exception):
    """The file cannot be decoded, for this reason."""


class Opening(NamedTuple):
    container: str
    """The name of a demuxer, or ``PROBE``."""
    block_bytes: int
    probe_bytes: int
    needs_all: int
    """1: the file is kept until its end."""


class Stream:
    """The child's end of a stream, and the file object that libavformat reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        kind, opening = self._receive()
        assert kind == OPEN
        container, *numbers = opening.decode().split()
        self.opening = Opening(container, *map(int, numbers))
        self.keeps = bool(self.opening.needs_all)
        """Everything is kept, and libavformat may seek."""
        self.refusal = ""
        self._data = bytearray()
        self._data_begin = 0
        """Position of the data in the file."""
        self._position = 0
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
        block = self._peek(self._position, min(size, self.opening.block_bytes))
        self._position += len(block)
        return block

    def seekable(self) -> bool:
        return self.keeps

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        whence &= 3  # libavformat adds flags.
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            while not self._no_more:
                self._await_data()
            offset += len(self._data)
        if offset < 0:
            raise OSError
        self._position = offset
        return offset

    def keep_unless_index_is_first(self) -> None:
        """Keep an MP4 file unless its index (``moov``) precedes its media, as in a live stream."""
        self.keeps = True
        offset = 0
        while len(head := self._peek(offset, 16)) >= 8:
            length, name = mov_box(head, 0)
            if name in (b"moov", b"moof"):
                self.keeps = False
                return
            if name == b"mdat" or length < 8:
                return
            offset += length

    def xing_s(self) -> float:
        """Duration in the Xing header of MP3, which libavformat reads only if it can seek; 0: none.
        In front of the first frame may be tags."""
        begin = 0
        while (head := self._peek(begin, 10)).startswith(b"ID3"):
            begin += tag_bytes(head, 0)
        head = self._peek(begin, XING_BYTES)
        if (frame := mp3_frame(head)) is None:
            return 0.0
        frames, _ = xing(head)
        return frames * mp3_frame_s(frame[0])

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            self._connection.sendall(REPLY.pack(kind, len(payload)) + payload)
        except ConnectionError:
            hang_up()
        signal.setitimer(signal.ITIMER_REAL, STEP_S_MAX)

    def send_pcm(self, pcm: bytes) -> None:
        if not pcm:
            return
        self._heard_anything = True
        self._soundless_bytes = 0
        self._samples_left -= len(pcm) // 2
        if self._samples_left < 0:
            raise AudioTooLongError
        for begin in range(0, len(pcm), REPLY_BYTES_MAX):
            self.send(PCM, pcm[begin : begin + REPLY_BYTES_MAX])

    def _peek(self, position: int, size: int) -> bytes:
        """Bytes at ``position``, fewer at the end. Blocks until they are there."""
        while len(self._data) < position - self._data_begin + size and not self._no_more:
            self._await_data()
        begin = position - self._data_begin
        return bytes(self._data[begin : begin + size])

    def _await_data(self) -> None:
        if self._begun:
            self.send(MORE)
        kind, payload = self._receive()
        self._begun = True
        self._soundless_bytes += len(payload)
        if not self.keeps:
            del self._data[: self._position - self._data_begin]
            self._data_begin = self._position
            # For libavformat corrupt data ends here.
            self._gave_up = self._soundless_bytes > SOUNDLESS_BYTES_MAX
            if self._gave_up:
                self.refusal = (
                    f"no audio was found in {SOUNDLESS_BYTES_MAX} bytes (SOUNDLESS_BYTES_MAX)"
                )
        elif len(self._data) + len(payload) > KEPT_BYTES_MAX:
            self._gave_up = True
            self.refusal = (
                f"the file's index is not at its beginning, and the file is longer than "
                f"{KEPT_BYTES_MAX} bytes (KEPT_BYTES_MAX)"
            )
        self._no_more = kind == END or self._gave_up
        is_header = self._data_begin + len(self._data) < self.opening.probe_bytes
        self._data += payload
        if is_header:
            for written, readable in STREAMED.get(self.opening.container, ()):
                self._data = self._data.replace(written, readable, 1)

    def _receive(self) -> tuple[bytes, bytes]:
        signal.setitimer(signal.ITIMER_REAL, 0)
        kind, length, self._samples_left = REQUEST.unpack(self._receive_exactly(REQUEST.size))
        payload = self._receive_exactly(length)
        signal.setitimer(signal.ITIMER_REAL, STEP_S_MAX)
        return kind, payload

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


class Track:
    """One audio track to mono at 16 kHz."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[Any, ...] = ()
        self._downmix: Downmix | None = None
        self.blocks: Counter[int | None] = Counter()
        """As ``Downmix.blocks``; empty if there was one channel only."""
        self.heard_s = 0.0
        self.end_s = 0.0
        """By the times of its frames, between which may be gaps."""

    def convert(self, frame: av.AudioFrame) -> np.ndarray[Any, Any]:
        flushed = NOTHING
        length_s = frame.samples / frame.sample_rate
        self.heard_s += length_s
        self.end_s = max(self.end_s, self.heard_s, (frame.time or 0) + length_s)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:  # The first frame, or the next file of a chain.
            flushed = self.flush()
            self._form = form
            channels = frame.layout.nb_channels
            layout = "mono" if channels == 1 else frame.layout
            self._resampler = av.AudioResampler("s16", layout, SAMPLE_RATE_HZ)
            self._downmix = Downmix(channels, SAMPLE_RATE_HZ) if channels > 1 else None
        return np.concatenate([flushed, self._resampled(frame)])

    def flush(self) -> np.ndarray[Any, Any]:
        if self._resampler is None:
            return NOTHING
        rest = self._resampled(None)
        if self._downmix is not None:
            rest = np.concatenate([rest, to_s16(self._downmix.flush())])
            self.blocks += self._downmix.blocks
        self._resampler = None
        self._form = ()
        return rest

    def _resampled(self, frame: av.AudioFrame | None) -> np.ndarray[Any, Any]:
        assert self._resampler is not None
        parts = [np.asarray(part.to_ndarray()[0]) for part in self._resampler.resample(frame)]
        samples = np.concatenate([NOTHING, *parts])
        if self._downmix is None:
            return samples
        channels = len(self._downmix.powers)
        return to_s16(self._downmix.feed(samples.reshape(-1, channels).astype(np.float32)))


NOTHING = np.empty(0, np.int16)


class Tracks:
    """Several parallel tracks, of which the loudest is used."""

    def __init__(self, count: int) -> None:
        self._waiting = [NOTHING] * count
        self._downmix = Downmix(count, SAMPLE_RATE_HZ, mix=False)

    def add(self, number: int, pcm: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self._waiting[number] = np.concatenate([self._waiting[number], pcm])
        longest = max(map(len, self._waiting))
        shortest = min(map(len, self._waiting))
        ready = max(shortest, longest - TRACK_LAG_S_MAX * SAMPLE_RATE_HZ)
        return to_s16(self._downmix.feed(self._take(ready)))

    def flush(self) -> np.ndarray[Any, Any]:
        last = self._downmix.feed(self._take(max(map(len, self._waiting))))
        return to_s16(np.concatenate([last, self._downmix.flush()]))

    @property
    def blocks(self) -> Counter[int | None]:
        return self._downmix.blocks

    def _take(self, samples: int) -> np.ndarray[Any, Any]:
        taken = np.zeros((samples, len(self._waiting)), np.float32)
        for number, waiting in enumerate(self._waiting):
            part = waiting[:samples]
            taken[: len(part), number] = part
            self._waiting[number] = waiting[samples:]
        return taken


def decode(file: Any, opening: Opening, use_pcm: Callable[[bytes], None]) -> dict[str, str]:
    """Decode ``file`` to its end and pass its audio on, mono s16 at 16 kHz. Returns messages, by
    their codes, if not all of its audio was used or has arrived."""
    declared_s = file.xing_s() if opening.container == "mp3" else 0.0
    options = {"probesize": str(opening.probe_bytes), "analyzeduration": "0"}
    probes = opening.container == PROBE
    if probes:
        options |= {"formatprobesize": str(PROBE_BYTES), "format_whitelist": PROBED}
    container = av.open(
        file, mode="r", format=None if probes else opening.container, options=options
    )
    audio = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not audio:
        raise RefusedError(
            "its audio codec is not supported"
            if container.streams.audio
            else "the file has no audio track"
        )
    tracks = {stream.index: Track() for stream in audio}
    side_by_side = Tracks(len(audio))
    numbers = {stream.index: number for number, stream in enumerate(audio)}
    for stream in audio:
        stream.codec_context.thread_count = 1
        if stream.codec_context.name in CHECKED_CODECS:
            stream.codec_context.options = {"err_detect": "crccheck"}
    # Later, libavformat extends the durations of live streams.
    declared_s = max(declared_s, *(_declared_s(container, stream) for stream in audio))
    converted = ((n, tracks[n].convert(frame)) for n, frame in _frames(container, audio, file))
    flushed = ((n, track.flush()) for n, track in tracks.items())
    for index, pcm in itertools.chain(converted, flushed):
        if len(audio) > 1:
            pcm = side_by_side.add(numbers[index], pcm)
        use_pcm(pcm.tobytes())
    heard_s = max(track.end_s for track in tracks.values())
    bytes_per_s = (audio[0].codec_context.bit_rate or 0) / 8
    notices = {"truncated": missing(declared_s, bytes_per_s, heard_s)}
    if len(audio) > 1:
        use_pcm(side_by_side.flush().tobytes())
        notices["loudest_only"] = notice("track", len(audio), side_by_side.blocks)
    else:
        ((stream, track),) = zip(audio, tracks.values(), strict=True)
        channels = stream.codec_context.channels
        notices["loudest_only"] = notice("channel", channels, track.blocks)
    return {code: message for code, message in notices.items() if message}


def _declared_s(container: Any, stream: Any) -> float:
    """Duration of ``stream`` according to the file's header; 0: unknown."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


def _frames(container: Any, audio: list[Any], file: Any) -> Iterator[tuple[int, av.AudioFrame]]:
    heard = skipped = trailing_bytes = 0
    fault: Exception | None = None
    packets = container.demux(audio)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError as error:  # PyAV knows only the streams at the beginning.
            raise RefusedError("a further track begins within the file") from error
        except (av.error.FFmpegError, NotImplementedError):
            if not heard or not _ends(container, file):
                raise
            return
        if packet.has_sidedata("encryption_info"):
            raise RefusedError("the file is encrypted")
        if _is_pause(packet):
            yield packet.stream.index, _silence(packet)
            continue
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            if heard < BAD_FRAMES_FIRST:
                skipped += 1
                if skipped > BAD_FRAMES_FIRST:
                    raise
            elif not _is_padding(bytes(packet)):
                # It may be the end: a part of a frame.
                fault = error
                trailing_bytes += packet.size
                if trailing_bytes > TRAILING_BYTES_MAX:
                    raise
            continue
        for frame in frames:
            if fault is not None:
                raise fault
            heard += 1
            yield packet.stream.index, frame


def _ends(container: Any, file: Any) -> bool:
    """Whether the audio has ended where the demuxer fails: at a tag, or at the last few bytes."""
    is_wv = container.format.name == "wv"
    left = 0
    while (is_wv or left <= TRAILING_BYTES_MAX) and (block := file.read(WASTE_BYTES)):
        left += len(block)
    return is_wv or left <= TRAILING_BYTES_MAX


def _is_padding(data: bytes) -> bool:
    return data.startswith(TAGS) or not any(data)


def _is_pause(packet: Any) -> bool:
    """Whether it is one of the short frames of AMR that stand for pauses (3GPP TS 26.101, 26.201:
    SID, NO_DATA). libavcodec does not decode them."""
    codec: str = packet.stream.codec_context.name
    return codec.startswith("amr") and 0 < packet.size <= PAUSE_BYTES_MAX


def _silence(packet: Any) -> av.AudioFrame:
    context = packet.stream.codec_context
    samples = round((packet.duration or 0) * packet.time_base * context.sample_rate)
    silence = np.zeros((1, max(1, samples)), np.int16)
    frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
    frame.sample_rate = context.sample_rate
    return frame


def rehearse() -> None:
    """Decode a silent WAV file: PyAV imports much of itself on first use, and children cannot open
    files. The modules for subtitles are imported above."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(bytes(4 * 800))
    file.seek(0)
    decode(file, Opening("wav", 4_096, 2_048, 0), lambda pcm: None)


def run_child(connection: socket.socket) -> None:
    """Decode one stream. This is all that a child does."""
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    confine()
    stream = Stream(connection)
    try:
        if stream.opening.container == "mov":
            stream.keep_unless_index_is_first()
        notices = decode(stream, stream.opening, stream.send_pcm)
        if stream.is_corrupt:
            raise av.error.InvalidDataError(0, "no audio")
    except AudioTooLongError:
        stream.send(FAILED, b"audio_too_long:the audio is longer than allowed")
    except (RefusedError, av.error.FFmpegError, ValueError, MemoryError) as error:
        reason = f"{CORRUPT} ({type(error).__name__})"
        if isinstance(error, RefusedError):
            reason = str(error)
        stream.send(FAILED, f"bad_audio:{stream.refusal or reason}".encode())
    else:
        for code, message in notices.items():
            stream.send(NOTICE, f"{code}:{message}".encode())
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
