"""Install the pinned packages into .venv: ``make run`` and ``make setup`` call this.

Without make: ``python3 tools/ops/setup.py``, then ``.venv/bin/asr serve``. The script runs before
anything is installed, so it needs only the standard library.

PyTorch comes from its own index of CPU builds by default. pip's ordinary index has a CUDA build,
whose libraries take 3 GB; ``--device cuda`` asks for that one.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before the imports, which would fail.
    sys.exit(
        "error: Python 3.11 or later is needed, but this is "
        + sys.version.split()[0]
        + ": use another one, as in PYTHON=python3.12 make run"
    )

import argparse
import collections
import importlib.metadata
import json
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import IO, Any, Final, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.ops import requirements

ROOT: Final = Path(__file__).resolve().parents[2]
CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
PROBE_TIMEOUT_S: Final = 5
"""How long to wait for an answer of the index of CPU builds, which is asked once."""
SHOWN_MB_MIN: Final = 10.0
"""Size from which a download has a line of its own where standard output is no terminal."""
ERROR_LINES_MAX: Final = 20
CUDA_PACKAGE: Final = re.compile(r"(nvidia|cuda|triton)\b")
STAMPS: Final = {"run": ".installed-run", "test": ".installed-test"}
"""Files in .venv that record the installed packages."""
READ: Final = (
    "pyproject.toml",
    "constraints.txt",
    "tools/client/pyproject.toml",
    "tools/ops/setup.py",
    "tools/ops/requirements.py",
)
"""Files after whose change the installation is brought up to date."""
_FETCHED: Final = re.compile(
    r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?"
    r"([^/\s]+?-[^-/\s]+)(?:-\S+\.whl|\.tar\.\w+|\.zip)(?: \(([\d.]+) ([kMG]?)B\))?\s*"
)
_MB: Final = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}


def fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


class Step:
    """One command of pip and its progress: a line that changes on a terminal, or else a line for
    each large download and one at the end."""

    def __init__(self, title: str, out: IO[str] = sys.stdout) -> None:
        self._title = title
        self._out = out
        self._is_terminal = out.isatty()
        self._began_s = time.monotonic()
        self._last: collections.deque[str] = collections.deque(maxlen=ERROR_LINES_MAX)
        self._doing = "looking for versions"
        self._packages = 0
        self._megabytes = 0.0

    def run(self, command: list[str]) -> None:
        """Run ``command``; end the program with its last lines if it fails."""
        self._show()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        lines: queue.Queue[str | None] = queue.Queue()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            reader = threading.Thread(target=self._read, args=(process.stdout, lines), daemon=True)
            reader.start()
            line: str | None = ""
            while line is not None:
                try:
                    line = lines.get(timeout=1)
                except queue.Empty:
                    line = ""
                if line:
                    self.note(line)
                self._show()
        if process.returncode:
            print("", *self._last, sep="\n", file=self._out)
            fail(f"{self._title}: pip failed; its last lines are above")
        self._end()

    @staticmethod
    def _read(source: IO[str], lines: queue.Queue[str | None]) -> None:
        for line in source:
            lines.put(line.rstrip())
        lines.put(None)

    def note(self, line: str) -> None:
        """Take a line of pip's output."""
        self._last.append(line)
        if match := _FETCHED.fullmatch(line):
            name, number, unit = match.groups()
            megabytes = float(number) * _MB[unit] if number else 0.0
            self._megabytes += megabytes
            size = f" ({megabytes:.0f} MB)" if megabytes >= 1 else ""
            self._doing = f"{urllib.parse.unquote(name)}{size}"
            if not self._is_terminal and megabytes >= SHOWN_MB_MIN:
                print(f"  {self._title}: {self._doing}", file=self._out, flush=True)
        elif line.startswith("Installing collected packages: "):
            self._doing = f"unpacking {line.count(',') + 1} packages"
        elif line.startswith("Successfully installed "):
            self._packages = len(line.split()) - 2

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began_s:.0f} s"

    def _show(self) -> None:
        if self._is_terminal:
            text = f"  {self._title}: {self._doing}, {self._elapsed()}"
            print(f"\r\x1b[K{text}", end="", file=self._out, flush=True)

    def _end(self) -> None:
        size = f", {self._megabytes:.0f} MB fetched" if self._megabytes >= 1 else ""
        new = f"{self._packages} new packages" if self._packages else "up to date"
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}  {self._title}: {new}{size}, {self._elapsed()}", file=self._out, flush=True)


class Setup:
    """The installation of the project in ``root`` into its .venv."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pyproject = root / "pyproject.toml"
        self._venv = root / ".venv"
        self._python = str(self._venv / "bin" / "python")
        self._pip = [self._python, "-m", "pip", "install", "--disable-pip-version-check"]
        self._constrained = ["-c", str(root / "constraints.txt")]

    def check_volume(self) -> None:
        """End the program if libraries cannot be loaded from the volume of .venv."""
        place = self._venv if self._venv.exists() else self._root
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            fail(
                f"{place.resolve()} is on a volume that is mounted noexec, from which no library "
                "can be loaded: use another volume, or make .venv a link to a directory on one"
            )

    def make_venv(self) -> None:
        """Create .venv, also where an earlier attempt ended before pip was there."""
        if (self._venv / "bin" / "pip").exists():
            return
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(self._venv)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stdout + done.stderr)
            fail(f"{sys.executable} cannot create {self._venv}; its message is above")

    def install_torch(self, device: str, index: str) -> None:
        """Install PyTorch; an installed build is kept unless ``device`` asks for the other one."""
        step = Step("PyTorch")
        installed = self._installed_torch()
        if installed is not None and (not device or (device == "cuda") == installed):
            return
        pinned = [
            line
            for line in requirements.pinned(self._root / "constraints.txt")
            if line.startswith("torch==")
        ]
        found = None
        if device != "cuda":
            print(f"  PyTorch: looking for a CPU build at {index}", flush=True)
            try:
                found = self._find(pinned or ["torch"], ["--index-url", index], PROBE_TIMEOUT_S)
            except subprocess.CalledProcessError:
                print(f"  {index} does not answer, or has no {' '.join(pinned)}: using pip's index")
        try:
            found = found or self._find(pinned or ["torch"], [], None)
        except subprocess.CalledProcessError as failed:
            print("", *failed.stderr.splitlines()[-ERROR_LINES_MAX:], sep="\n")
            fail(
                f"pip finds no {' '.join(pinned)}; its last lines are above. PIP_INDEX_URL sets "
                "the index of all packages, TORCH_INDEX_URL that of PyTorch"
            )
        cuda = [need for need in found["metadata"].get("requires_dist", []) if is_cuda(need)]
        if cuda and device != "cuda":
            print(
                f"  pip's index has PyTorch's CUDA build: {len(cuda)} packages of CUDA libraries "
                "(3 GB) come with it. To avoid that, set TORCH_INDEX_URL to an index of CPU builds."
            )
        step.run([*self._pip, *_INSTALL, "--force-reinstall", "--no-deps", _address(found)])

    def _installed_torch(self) -> bool | None:
        """Return whether the installed PyTorch is a CUDA build; None if none is installed."""
        places = [str(path) for path in self._venv.glob("lib/python3.*/site-packages")]
        for found in importlib.metadata.distributions(name="torch", path=places):
            return any(is_cuda(need) for need in found.requires or [])
        return None

    def _find(self, wanted: list[str], where: list[str], limit_s: int | None) -> Any:
        """Return pip's report of the build that it would install; CalledProcessError if none."""
        limits = ["--timeout", str(limit_s), "--retries", "0"] if limit_s else []
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory) / "report.json"
            command = [*self._pip, "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
            subprocess.run(
                [*command, "--report", str(report), *where, *limits, *wanted],
                capture_output=True,
                text=True,
                check=True,
            )
            return json.loads(report.read_text(encoding="utf-8"))["install"][0]

    def install(self, title: str, wanted: list[str], *options: str) -> None:
        """Install the requirements ``wanted``, in the versions of constraints.txt."""
        Step(title).run([*self._pip, *_INSTALL, *self._constrained, *options, *wanted])

    def is_current(self, purpose: str) -> bool:
        """Whether nothing that setup reads was changed since it installed for ``purpose``."""
        stamp = self._venv / STAMPS[purpose]
        if not stamp.exists():
            return False
        return all((self._root / name).stat().st_mtime <= stamp.stat().st_mtime for name in READ)

    def run(self, purpose: str, device: str, index: str) -> None:
        self.check_volume()
        purposes = ["run"] if purpose == "run" else ["run", "test"]
        if not device and all(self.is_current(each) for each in purposes):
            return
        began_s = time.monotonic()
        print(f"Installing into {self._venv}", flush=True)
        self.make_venv()
        if device or not self.is_current("run"):
            self.install_torch(device, index)
            self.install("Packages", requirements.requirements(self._pyproject, extras=False))
            self.install("Packages of models", requirements.alone(self._pyproject), "--no-deps")
            client = ["--no-deps", "--no-build-isolation", "-e"]
            self.install("Command asr", [str(self._root / "tools" / "client")], *client)
            (self._venv / STAMPS["run"]).touch()
        if purpose == "test" and not self.is_current("test"):
            self.install("Packages of tests and tools", requirements.development(self._pyproject))
            (self._venv / STAMPS["test"]).touch()
        print(f"Installed in {time.monotonic() - began_s:.0f} s", flush=True)


_INSTALL: Final = [
    "--progress-bar",
    "off",
    # Python compiles a module when it is first imported; most of the 60,000 never are.
    "--no-compile",
]


def is_cuda(requirement: str) -> bool:
    return CUDA_PACKAGE.match(requirement.lower()) is not None


def _address(found: Any) -> str:
    """Return the address of a build in pip's report, with its hash if the index has one."""
    info = found["download_info"]
    digest = info.get("archive_info", {}).get("hashes", {}).get("sha256")
    address: str = info["url"]
    return f"{address}#sha256={digest}" if digest else address


def main() -> None:
    parser = argparse.ArgumentParser(description="Install the pinned packages into .venv.")
    parser.add_argument(
        "--for", choices=STAMPS, default="run", dest="purpose", help="what to install: %(choices)s"
    )
    parser.add_argument(
        "--device",
        choices=["", "cpu", "cuda"],
        default=os.environ.get("DEVICE", ""),
        help="build of PyTorch; by default what is installed, or else cpu",
    )
    parser.add_argument(
        "--index",
        default=os.environ.get("TORCH_INDEX_URL") or CPU_INDEX,
        help="index of PyTorch's CPU builds (TORCH_INDEX_URL)",
    )
    arguments = parser.parse_args()
    try:
        Setup(ROOT).run(arguments.purpose, arguments.device, arguments.index)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
