from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.chaos import disks
from tools.ops.procfile import ROOT

SCRIPT = """
import sys
from pathlib import Path
from tools.lab.chaos import disks
path = Path(sys.argv[1])
try:
    disks.enter_namespace()
    disks.mount(path, 1 << 20)
except disks.NoSmallDisksError as error:
    sys.exit(f"no small disks: {error}")
print(disks.fill(path))
try:
    (path / "more").write_bytes(bytes(10_000))
except OSError as error:
    print(error.errno)
disks.free(path)
(path / "more").write_bytes(bytes(10_000))
print(sorted(each.name for each in path.iterdir()))
"""


def test_a_small_disk_is_filled_and_freed_and_vanishes_with_its_process(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    command = [sys.executable, "-c", SCRIPT, str(disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.stderr.startswith("no small disks"):
        pytest.skip(done.stderr.strip())
    assert done.stdout.split("\n")[:3] == ["1048576", "28", "['more']"], done.stderr
    assert list(disk.iterdir()) == []


def test_a_refused_mount_raises(tmp_path: Path) -> None:
    with pytest.raises(disks.NoSmallDisksError):
        disks._mount("-t", "no-such-file-system", "nothing", str(tmp_path))
