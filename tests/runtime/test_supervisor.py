"""The supervisor with real child processes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime import exit_codes, supervisor
from runtime.supervisor import Child, end_children

PATIENCE_S = 30.0


def program(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def check_until(child: Child, done: Callable[[], object]) -> int | None:
    """Check ``child`` until ``done``, or until it exits with a final code, which is returned."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        code = child.check(time.monotonic())
        if code is not None or done():
            return code
        threading.Event().wait(0.02)
    raise AssertionError("nothing happened")


def never() -> bool:
    return False


def lives(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def living(path: Path, then: str) -> list[str]:
    """A program that writes a line to a file at each start."""
    return program(f"import sys, time; open({str(path)!r}, 'a').write('x'); {then}")


def test_a_crashed_child_is_restarted(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    child = Child(living(marks, "sys.exit(7)"))
    assert check_until(child, lambda: lives(marks) >= 3) is None
    child.end()


def test_a_failed_start_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([True, True, False])
    popen = subprocess.Popen

    def scarce(*arguments: Any, **options: Any) -> Any:
        if next(refusals):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return popen(*arguments, **options)

    monkeypatch.setattr("runtime.supervisor.subprocess.Popen", scarce)
    marks = tmp_path / "marks"
    child = Child(living(marks, "time.sleep(60)"), silence_s_max=60.0)
    assert check_until(child, lambda: lives(marks) == 1) is None
    child.end()


def test_a_final_exit_code_is_not_restarted() -> None:
    for code in exit_codes.FINAL:
        assert check_until(Child(program(f"raise SystemExit({code})")), never) == code


def test_the_final_exit_codes_can_be_set(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    child = Child(living(marks, "sys.exit(69)"), final=frozenset({exit_codes.CONFIG}))
    assert check_until(child, lambda: lives(marks) >= 2) is None
    child.end()


def test_a_child_that_exits_after_sigterm_is_restarted(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    child = Child(living(marks, "sys.exit(0)"))
    assert check_until(child, lambda: lives(marks) >= 2) is None
    child.end()


def test_a_child_without_beats_is_killed_and_restarted(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    child = Child(living(marks, "time.sleep(600)"), silence_s_max=0.5)
    check_until(child, lambda: child.pid is not None)
    assert child.pid is not None
    silent = psutil.Process(child.pid)
    check_until(child, lambda: lives(marks) >= 2)
    assert not silent.is_running()
    child.end()


def test_a_child_with_beats_is_kept(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    source = (
        "from runtime.liveness import Liveness; import time; beat = Liveness()\n"
        f"for _ in range(40): beat.beat(); time.sleep(0.05)\nopen({str(marks)!r}, 'a').write('x')\n"
        f"raise SystemExit({exit_codes.UNAVAILABLE})"
    )
    child = Child(program(source), silence_s_max=1.0, environment={"PYTHONPATH": str(Path.cwd())})
    assert check_until(child, never) == exit_codes.UNAVAILABLE
    assert lives(marks) == 1


def test_the_environment_is_added_to_the_inherited_one() -> None:
    source = "import os; raise SystemExit(int(os.environ['A']) if 'PATH' in os.environ else 1)"
    child = Child(program(source), environment={"A": "78"})
    assert check_until(child, never) == 78


def test_all_children_are_ended_concurrently(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    marks = [tmp_path / name for name in ("a", "b")]
    children = [
        Child(program(f"{stubborn}open({str(path)!r}, 'w').write('x'); time.sleep(600)"))
        for path in marks
    ]
    for child, path in zip(children, marks, strict=True):
        check_until(child, lambda path=path: lives(path))  # type: ignore[misc]
    pids = [child.pid for child in children if child.pid is not None]
    assert end_children(children, kill_after_s=0.3) == 0
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


# ------------------------------------------------------------------------------------- the command

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def supervise(directory: Path, source: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m runtime.supervisor child`` with ``source`` as that package."""
    package = directory / "child"
    package.mkdir()
    (package / "__main__.py").write_text(source)
    with subprocess.Popen(
        [sys.executable, "-m", "runtime.supervisor", "child"],
        env={**os.environ, "PYTHONPATH": f"{directory}:{ROOT}", "LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            yield command
        finally:
            command.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


WAITS = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: exit({code}))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("code", sorted(exit_codes.FINAL))
def test_the_command_returns_a_final_exit_code(tmp_path: Path, code: int) -> None:
    with supervise(tmp_path, f"raise SystemExit({code})") as command:
        _, errors = command.communicate()
    assert command.returncode == code
    assert errors == ""


def test_the_command_logs_a_crash_and_restarts_the_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = f"""
import pathlib
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    raise SystemExit(7)
raise SystemExit(69)
"""
    with supervise(tmp_path, source) as command:
        _, errors = command.communicate()
    assert command.returncode == exit_codes.UNAVAILABLE
    (line,) = errors.splitlines()
    assert '"event": "child_exited"' in line
    assert '"exit_code": 7' in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_ends_its_child(tmp_path: Path, number: signal.Signals) -> None:
    with supervise(tmp_path, WAITS.format(code=0)) as command:
        child = psutil.Process(int(first_line(command)))
        command.send_signal(number)
        command.communicate()
    assert command.returncode == exit_codes.OK
    assert not child.is_running()


def test_kill_9_of_the_command_leaves_no_orphan(tmp_path: Path) -> None:
    with supervise(tmp_path, WAITS.format(code=0)) as command:
        child = psutil.Process(int(first_line(command)))
        command.kill()
    deadline_s = time.monotonic() + PATIENCE_S
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


def test_the_command_requires_one_package(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["one", "two"]):
        with pytest.raises(SystemExit) as ended:
            supervisor.main(arguments)
        assert ended.value.code == exit_codes.CONFIG
        assert capsys.readouterr().err == "error: usage: python -m runtime.supervisor PACKAGE\n"


@pytest.mark.parametrize(("name", "hint"), [("SIGKILL", "memory"), ("SIGABRT", "ulimit")])
def test_a_child_that_a_signal_ends_is_logged_with_the_likely_cause(
    tmp_path: Path, name: str, hint: str
) -> None:
    mark = tmp_path / "mark"
    source = f"""
import os, pathlib, signal
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.{name})
raise SystemExit(69)
"""
    with supervise(tmp_path, source) as command:
        _, errors = command.communicate()
    (line,) = [line for line in errors.splitlines() if "child_exited" in line]
    assert f'"exit_code": {-signal.Signals[name]}' in line
    assert f'"signal": "{name}"' in line and hint in line


def test_orphans_are_collected_and_supervised_children_are_not() -> None:
    """In a process of its own, which adopts orphans as process 1 does."""
    program = """
import ctypes, os, subprocess, sys, time
from runtime.supervisor import Child, reap_orphans
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
child = Child([sys.executable, "-c", "raise SystemExit(69)"])
child.check(0.0)
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
reap_orphans([child])
assert child.check(1.0) == 69, "its exit code was taken"
shell = "exec 3<&0; cat <&3 >/dev/null & echo $!"
parent = subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
orphan = int(parent.stdout.readline())
parent.wait()
parent.stdin.close()
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
reap_orphans([])
assert not os.path.exists(f"/proc/{orphan}"), "a zombie is left"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
