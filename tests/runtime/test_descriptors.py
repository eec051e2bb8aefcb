from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from runtime import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(descriptors.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("soft, hard", [(256, 4_096), (4_096, 4_096)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= hard
    program = PROGRAM.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"4096"] * 3


SHORTAGE = """
import resource
from runtime import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(descriptors.shortage() or resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "printed"),
    [
        (64, 100, "100 open files are allowed, 256 are needed: raise `ulimit -n`"),
        (64, 4_096, "(256, 4096)"),
        (1_024, 4_096, "(1024, 4096)"),
    ],
)
def test_a_process_needs_some_descriptors(soft: int, hard: int, printed: str) -> None:
    program = SHORTAGE.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == printed
