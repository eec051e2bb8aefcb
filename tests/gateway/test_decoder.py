"""What ends a decoder that goes beyond its limits: the kernel. What the gateway makes of it is in
test_decoding.py."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from gateway import decoder

MEMORY = f"""
decoder.confine()
try:
    bytearray({decoder.MEMORY_BYTES_MAX})
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
decoder.EXCHANGE_S_MAX = 1
ours, theirs = socket.socketpair()
ours.sendall(decoder.REQUEST.pack(decoder.OPEN, 3, 0) + b"ogg")
ours.sendall(decoder.REQUEST.pack(decoder.DATA, 1_000, 0) + bytes(1_000))

def stuck(file, _container, _use_frames):
    file.read(100)
    time.sleep(60)

decoder.decode = stuck
decoder.run_child(theirs)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    imports = "import errno, socket, time\nfrom gateway import decoder\n"
    arguments = [sys.executable, "-c", imports + script]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("script", "said"),
    [(MEMORY, ["no memory"]), (FILES, ["no file True", "no file True", "no socket"])],
    ids=["memory", "files"],
)
def test_it_is_given_no_more(script: str, said: list[str]) -> None:
    assert run(script).stdout.splitlines() == said


@pytest.mark.parametrize(
    ("script", "signals"),
    [(PROCESSOR, {signal.SIGXCPU, signal.SIGKILL}), (WALL, {signal.SIGALRM})],
    ids=["processor time", "wall time"],
)
def test_it_is_ended(script: str, signals: set[int]) -> None:
    assert -run(script).returncode in signals
