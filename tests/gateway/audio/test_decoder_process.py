"""The program of the decoder processes, over the gateway's own protocol. ``test_decoder_pool``
tests what it decodes."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from gateway.audio import decoder_process
from gateway.audio.decoder_process import (
    DATA,
    END,
    FAILED,
    MORE,
    OPEN,
    REPLY,
    REQUEST,
    Opening,
    Stream,
)
from tools.lab.encoded_audio import encode

BLOCK_BYTES = 128
PROGRAM = decoder_process.__name__
OGG = encode(np.zeros(16_000, np.int16), "ogg", 48_000, 1)


def request(kind: bytes, payload: bytes = b"", samples_max: int = 1 << 30) -> bytes:
    return REQUEST.pack(kind, len(payload), samples_max) + payload


def replies(connection: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    with connection.makefile("rb") as file:
        while head := file.read(REPLY.size):
            kind, length = REPLY.unpack(head)
            yield kind, file.read(length)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """The control socket of a server of its own."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", PROGRAM], stdin=theirs.fileno())
    with ours:
        yield ours
    assert process.wait(10) == 0


def new_stream(server: socket.socket) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(server, [b"+"], [theirs.fileno()])
    return ours


def test_a_stream_is_answered_message_by_message(server: socket.socket) -> None:
    with new_stream(server) as connection:
        answers = replies(connection)
        connection.sendall(request(OPEN, b"ogg 128 2048 0") + request(DATA, OGG[:100]))
        assert next(answers) == (MORE, b"")
        connection.sendall(request(DATA, OGG[100:]) + request(END))
        kinds = [kind for kind, _ in answers]
    assert kinds.count(MORE) == 1
    assert kinds[-1] == decoder_process.ENDED
    assert set(kinds[:-1]) == {decoder_process.PCM, MORE}


def test_streams_have_processes_of_their_own_that_end_with_them(server: socket.socket) -> None:
    connections = [new_stream(server) for _ in range(3)]
    for connection in connections:
        connection.sendall(request(OPEN, b"ogg 128 2048 0") + request(DATA, OGG[:100]))
        assert next(replies(connection)) == (MORE, b"")
    # The test run has other children, such as its databases.
    (process,) = (c for c in psutil.Process().children() if PROGRAM in c.cmdline())
    children = process.children()
    assert len(children) == 3
    for connection in connections:
        connection.close()
    gone, alive = psutil.wait_procs(children, 10)
    assert (len(gone), alive) == (3, [])


def test_the_server_ends_its_streams_when_the_control_socket_closes(
    server: socket.socket,
) -> None:
    with new_stream(server) as connection:
        connection.sendall(request(OPEN, b"ogg 128 2048 0") + request(DATA, OGG[:100]))
        answers = replies(connection)
        assert next(answers) == (MORE, b"")
        server.close()
        assert next(answers, None) is None


@pytest.mark.parametrize("sizes", [[1], [BLOCK_BYTES], [7, 1_000, 300]])
def test_blocks_are_the_same_whatever_the_messages(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process is no decoder and must not be ended by a decoder's alarm.
    alarms: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda _, delay_s: alarms.append(delay_s))
    data = bytes(n % 251 for n in range(10 * BLOCK_BYTES + 5))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(request(OPEN, b"flac 128 2048 0"))
        stream = Stream(theirs)
        assert stream.opening.container == "flac"
        writer = threading.Thread(target=_send_sliced, args=(ours, data, sizes))
        writer.start()
        blocks = list(iter(lambda: stream.read(32_768), b""))
        writer.join()
        theirs.shutdown(socket.SHUT_RDWR)
    assert b"".join(blocks) == data
    assert [len(block) for block in blocks] == [BLOCK_BYTES] * 10 + [5]
    # Running from each message to the next, and never while waiting for the parent.
    assert alarms[::2] == [0] * len(alarms[::2])
    assert alarms[1::2] == [decoder_process.STEP_S_MAX] * len(alarms[::2])


def _send_sliced(connection: socket.socket, data: bytes, sizes: list[int]) -> None:
    offset = 0
    for size in itertools.cycle(sizes):
        connection.sendall(request(DATA, data[offset : offset + size]))
        assert connection.recv(REPLY.size, socket.MSG_WAITALL) == REPLY.pack(MORE, 0)
        offset += size
        if offset >= len(data):
            break
    connection.sendall(request(END))


def test_the_rehearsal_decodes_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[int] = []
    original = decoder_process.decode

    def noted(file: Any, opening: Opening, use_pcm: Any) -> dict[str, str]:
        def use(pcm: bytes) -> None:
            samples.append(len(pcm) // 2)
            use_pcm(pcm)

        return original(file, opening, use)

    monkeypatch.setattr(decoder_process, "decode", noted)
    decoder_process.rehearse()
    assert sum(samples) == 2 * 800, "0.1 s of audio, resampled to 16 kHz"


def test_nothing_of_pyav_is_left_to_import() -> None:
    """If this fails, import the modules in ``decoder_process``: its children cannot."""
    script = """
import pkgutil, sys, av
decoder.rehearse()
print(*(m.name for m in pkgutil.walk_packages(av.__path__, "av.") if m.name not in sys.modules))
"""
    # The second downloads files.
    assert run_confined(script).stdout.split() == ["av.__main__", "av.datasets"]


def element(name: str, content: bytes) -> bytes:
    """An element of Matroska."""
    return bytes.fromhex(name) + bytes([0x80 | len(content)]) + content


TRACK = element("d7", b"\1") + element("83", b"\x11") + element("86", b"S_TEXT/UTF8")
CLUSTER = element("1f43b675", element("e7", b"\0"))
SUBTITLES = element("1a45dfa3", element("4282", b"matroska")) + element(
    "18538067", element("1654ae6b", element("ae", TRACK)) + CLUSTER
)


def test_a_track_of_subtitles_is_read(server: socket.socket) -> None:
    with new_stream(server) as connection:
        opening = request(OPEN, b"matroska 128 2048 0")
        connection.sendall(opening + request(DATA, SUBTITLES) + request(END))
        said = [payload for kind, payload in replies(connection) if kind == FAILED]
    assert said == [b"bad_audio:the file has no audio track"]


# ------------------------------------------------------- what ends one that goes beyond its limits

MEMORY = f"""
decoder.confine()
try:
    bytearray({decoder_process.MEMORY_BYTES_MAX})
except MemoryError:
    print("no memory")
"""
FILES = """
decoder.confine()
for name in ("/etc/hostname", "/dev/null"):
    try:
        open(name)
    except OSError as error:
        print("no file", error.errno == errno.EMFILE)
try:
    socket.socket()
except OSError:
    print("no socket")
"""
PROCESSOR = """
decoder.CPU_S_MAX = 1
decoder.confine()
while True:
    pass
"""
WALL = """
decoder.STEP_S_MAX = 1
ours, theirs = socket.socketpair()
ours.sendall(decoder.REQUEST.pack(decoder.OPEN, 14, 0) + b"ogg 128 2048 0")
ours.sendall(decoder.REQUEST.pack(decoder.DATA, 1_000, 0) + bytes(1_000))

def stuck(file, _container, _use_frames):
    file.read(100)
    time.sleep(60)

decoder.decode = stuck
decoder.run_child(theirs)
"""


def run_confined(script: str) -> subprocess.CompletedProcess[str]:
    imports = "import errno, socket, time\nfrom gateway.audio import decoder_process as decoder\n"
    arguments = [sys.executable, "-c", imports + script]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("script", "said"),
    [(MEMORY, ["no memory"]), (FILES, ["no file True", "no file True", "no socket"])],
    ids=["memory", "files"],
)
def test_a_child_is_confined(script: str, said: list[str]) -> None:
    assert run_confined(script).stdout.splitlines() == said


@pytest.mark.parametrize(
    ("script", "signals"),
    [(PROCESSOR, {signal.SIGXCPU, signal.SIGKILL}), (WALL, {signal.SIGALRM})],
    ids=["processor time", "wall time"],
)
def test_it_is_ended(script: str, signals: set[int]) -> None:
    assert -run_confined(script).returncode in signals
