from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from runtime import garbage

class Node: pass

kept = [Node() for _ in range(1000)]
garbage.settle()
assert gc.get_freeze_count() > 1000
assert gc.get_threshold() == (
    garbage.YOUNG_OBJECTS_MAX, garbage.YOUNG_COLLECTIONS_MAX, garbage.MIDDLE_COLLECTIONS_MAX
)
node = Node()
node.itself = node
gone = weakref.ref(node)
del node
more = []
while gone() is not None and len(more) < 3 * garbage.YOUNG_OBJECTS_MAX:
    more.append([])
assert gone() is None, "a cycle was never found"
"""


def test_what_lasts_is_left_alone_and_cycles_are_still_found() -> None:
    # In a process of its own: the collector's settings are the whole process's.
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
