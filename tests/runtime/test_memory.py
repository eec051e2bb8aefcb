from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from runtime import memory

PROGRAM = """
import gc, weakref
from runtime import memory

class Node: pass

kept = [Node() for _ in range(1000)]
memory.settle()
assert gc.get_freeze_count() > 1000
assert gc.get_threshold() == (
    memory.YOUNG_OBJECTS_MAX, memory.YOUNG_COLLECTIONS_MAX, memory.MIDDLE_COLLECTIONS_MAX
)
node = Node()
node.itself = node
gone = weakref.ref(node)
del node
more = []
while gone() is not None and len(more) < 3 * memory.YOUNG_OBJECTS_MAX:
    more.append([])
assert gone() is None, "a cycle was never found"
"""

SWEPT = """
import gc, weakref
from runtime import memory

class Node: pass

memory.settle()
node = Node()
node.itself = node
gone = weakref.ref(node)
gc.collect()  # Moves it to the oldest generation.
del node
memory.sweep()
assert gone() is None
"""

MAPPED = """
import sys, psutil
from runtime import memory

if sys.argv[1] == "mapped":
    memory.map_large()
large, small = [], []
for _ in range(300):
    large.append(b"x" * 100_000)
    small.append(b"y" * 1_000)
resident = psutil.Process().memory_info().rss
large.clear()
print(resident - psutil.Process().memory_info().rss)
"""


def test_settled_objects_are_not_scanned_and_cycles_are_collected() -> None:
    # In a separate process, because the collector's settings are global.
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_a_sweep_collects_old_objects() -> None:
    subprocess.run([sys.executable, "-c", SWEPT], check=True, timeout=60)


def test_a_sweeper_sweeps_periodically(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []
    monkeypatch.setattr(memory, "sweep", lambda: swept.append(1))
    sweeper = memory.Sweeper()
    every_s = memory.SWEEP_EVERY_S
    turns_s = (100.0, 100.0 + every_s / 2, 100.0 + every_s, 100.1 + every_s, 100.0 + 3 * every_s)
    assert [sweeper.turn(now_s) for now_s in turns_s] == [False, False, True, False, True]
    assert len(swept) == 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc only")
def test_large_buffers_are_returned_to_the_system_when_freed() -> None:
    assert freed_bytes("mapped") > 25_000_000 > freed_bytes("not mapped")


def freed_bytes(how: str) -> int:
    """Bytes returned to the system after 30 MB of buffers are freed between small objects."""
    command = [sys.executable, "-c", MAPPED, how]
    return int(subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout)
