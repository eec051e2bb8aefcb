"""The installation of ``make run``, by the real pip from indexes with both builds of torch."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tools.ops import setup

ROOT = Path(__file__).parents[3]
PYPROJECT = """
[project]
name = "project"
version = "1"
dependencies = ["torch", "server-library"]
[project.optional-dependencies]
dev = ["test-library"]
[tool.setup]
alone = ["lonely==1"]
"""
CLIENT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "client"
version = "1"
"""
BACKEND = """
import pathlib, shutil
def build_editable(directory, *_):
    shutil.copy(pathlib.Path(__file__).with_name("client-1-py3-none-any.whl"), directory)
    return "client-1-py3-none-any.whl"
"""
CUDA = ["nvidia-cuda-runtime-cu12==12", "triton==3"]


def add_wheel(directory: Path, name: str, version: str, needs: list[str] | None = None) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs or [])
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {f"{stem}.dist-info/METADATA": metadata, f"{stem}.dist-info/WHEEL": tags}
    record = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for path, text in [*files.items(), (f"{stem}.dist-info/RECORD", record)]:
            wheel.writestr(path, text)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{stem}-py3-none-any.whl"
    file.write_bytes(packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    with (directory / "index.html").open("a", encoding="utf-8") as index:
        index.write(f'<a href="{file.name}#sha256={digest}">{file.name}</a>\n')


class Project:
    """A small project with this one's Makefile, and two indexes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpu, self.ordinary = root / "cpu", root / "ordinary"
        (root / "tools" / "client").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", root)
        shutil.copy(ROOT / "tools" / "__init__.py", root / "tools")
        shutil.copytree(
            ROOT / "tools" / "ops", root / "tools" / "ops", ignore=lambda *_: ["__pycache__"]
        )
        (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
        pins = ["torch==2.13.0", "server-library==1", "test-library==1", "lonely==1"]
        (root / "constraints.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
        client = root / "tools" / "client"
        (client / "pyproject.toml").write_text(CLIENT, encoding="utf-8")
        (client / "backend.py").write_text(BACKEND, encoding="utf-8")
        add_wheel(client, "client", "1")
        add_wheel(self.cpu / "torch", "torch", "2.13.0+cpu")
        add_wheel(self.cpu / "torch", "torch", "2.14.0+cpu")
        for version in ("2.13.0", "2.14.0"):
            add_wheel(self.ordinary / "torch", "torch", version, CUDA)
        add_wheel(self.ordinary / "server-library", "server-library", "1", ["torch"])
        add_wheel(self.ordinary / "test-library", "test-library", "1")
        add_wheel(self.ordinary / "lonely", "lonely", "1", ["triton"])
        for need in CUDA:
            name, _, version = need.partition("==")
            add_wheel(self.ordinary / name, name, version)

    def make(self, *arguments: str, cpu_index: str | None = None) -> str:
        # Of pip and of a ``make`` that these tests run under, nothing: make counts its levels.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE"))}
        environment |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.ordinary.as_uri(),
            "TORCH_INDEX_URL": cpu_index or self.cpu.as_uri(),
            "PYTHON": sys.executable,
        }
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def installed(self) -> set[str]:
        """The installed packages, as ``name-version``, except those of a new environment."""
        found = {path.stem for path in self.root.glob(".venv/lib/*/site-packages/*.dist-info")}
        return {stem for stem in found if stem.partition("-")[0] not in ("pip", "setuptools")}


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment to be copied, since creating one takes seconds."""
    directory = tmp_path_factory.mktemp("venv") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    return directory


@pytest.fixture
def project(tmp_path: Path, venv: Path) -> Project:
    shutil.copytree(venv, tmp_path / ".venv", symlinks=True)
    return Project(tmp_path)


RUN = {"torch-2.13.0+cpu", "server_library-1", "lonely-1", "client-1"}


def test_by_default_no_cuda_library_and_no_tool_of_tests_is_fetched(project: Project) -> None:
    shown = project.make("installed")
    assert project.installed() == RUN
    assert "PyTorch: 1 new packages" in shown and "Packages: 1 new packages" in shown
    assert project.make("installed") == ""  # Up to date.

    (torch,) = project.root.glob(".venv/lib/*/site-packages/torch-*.dist-info")
    before = torch.stat().st_mtime_ns
    shown = project.make("setup")
    assert project.installed() == {*RUN, "test_library-1"}
    # The packages to run are not installed again, neither then nor for the next run.
    assert torch.stat().st_mtime_ns == before and "Packages:" not in shown
    assert project.make("installed") == project.make("setup") == ""


def test_the_other_build_is_installed_on_request_and_kept(project: Project) -> None:
    project.make("installed", "DEVICE=cuda")
    cuda = {"torch-2.13.0", "nvidia_cuda_runtime_cu12-12", "triton-3"}
    assert project.installed() == {*RUN - {"torch-2.13.0+cpu"}, *cuda}
    later_s = time.time() + 9
    os.utime(project.root / "constraints.txt", (later_s, later_s))
    project.make("installed")
    assert "torch-2.13.0" in project.installed()
    project.make("installed", "DEVICE=cpu")
    assert "torch-2.13.0+cpu" in project.installed()


def test_without_the_index_of_cpu_builds_pips_own_is_used_and_announced(
    project: Project,
) -> None:
    shown = project.make("installed", cpu_index="http://127.0.0.1:9/cpu")
    assert "http://127.0.0.1:9/cpu does not answer" in shown
    assert "PyTorch's CUDA build: 2 packages of CUDA libraries (3 GB)" in shown
    assert "torch-2.13.0" in project.installed()


def test_a_cpu_build_of_pips_own_index_is_taken_without_a_word(project: Project) -> None:
    shutil.rmtree(project.ordinary / "torch")
    add_wheel(project.ordinary / "torch", "torch", "2.13.0")
    shown = project.make("installed", cpu_index="http://127.0.0.1:9/cpu")
    assert "does not answer" in shown and "CUDA" not in shown
    assert "torch-2.13.0" in project.installed()


def test_an_environment_left_without_pip_is_completed(tmp_path: Path) -> None:
    """As Ctrl-C leaves it, and Debian's Python without its package python3-venv."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")]
    subprocess.run(command, check=True)
    setup.Setup(tmp_path).make_venv()
    assert (tmp_path / ".venv" / "bin" / "pip").exists()


def test_an_environment_that_cannot_be_created_is_an_error_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv").write_text("a file", encoding="utf-8")
    with pytest.raises(SystemExit, match="cannot create"):
        setup.Setup(tmp_path).make_venv()
    assert "Error: " in capsys.readouterr().out


def test_without_network_the_reason_is_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SystemExit, match="PIP_INDEX_URL"):
        setup.Setup(project.root).install_torch("", "http://127.0.0.1:9/cpu")
    assert "Connection refused" in capsys.readouterr().out


def test_a_volume_without_programs_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Flags:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda _: Flags)
    with pytest.raises(SystemExit, match="mounted noexec") as ended:
        setup.Setup(tmp_path).check_volume()
    assert str(ended.value).startswith("error: ") and "\n" not in str(ended.value)


class Terminal(io.StringIO):
    """Remembers what is written, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


PIP = """\
Collecting torch
  Downloading torch-2.13.0-py3-none-any.whl.metadata (30 kB)
  Downloading https://h/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (184.2 MB)
  Using cached small-1.0.tar.gz (12 kB)
Installing collected packages: small, torch
Successfully installed small-1.0 torch-2.13.0+cpu
"""


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_progress_names_large_downloads_and_sizes(out: io.StringIO) -> None:
    step = setup.Step("Packages", out)
    step.run([sys.executable, "-c", f"print({PIP!r}, end='')"])
    shown = out.getvalue()
    assert "Packages: torch-2.13.0+cpu (184 MB)" in shown
    assert "Packages: 2 new packages, 184 MB fetched, 0 s\n" in shown
    assert ("unpacking 2 packages" in shown) == out.isatty()
    assert "metadata" not in shown


def test_a_failure_shows_the_end_of_pips_output() -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit, match="Packages: pip failed"):
        setup.Step("Packages", out).run([sys.executable, "-c", "print('the reason'); exit(1)"])
    assert "the reason" in out.getvalue()


def test_an_old_python_is_reported_in_one_line() -> None:
    program = (
        "import runpy, sys; sys.version_info = (3, 10); "
        "runpy.run_path('tools/ops/setup.py', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Python 3.11") and ended.stderr.count("\n") == 1
