"""Settings: from the environment only, validated at start, logged with where each came from.

A process's own settings subclass ``ProcessSettings`` (and the mixins it needs) in its package.
A wrong value ends the process with one clear line and exit code ``exit_codes.CONFIG``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar
from urllib.parse import quote

import structlog
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime import exit_codes
from wire.keys import ClientKeys, KeysError, Role, client_keys

UNIX_SOCKET_PATH_BYTES_MAX = 107
"""Linux's limit on a Unix socket's path (``man 7 unix``), less the terminating zero."""

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
]
Endpoint = Annotated[str, Field(pattern=r"^(tcp|ipc|inproc)://.+")]


class ProcessSettings(BaseSettings):
    """What every process has."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, populate_by_name=True)

    log_level: LogLevel = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    """auto: readable on a terminal (and under honcho on one), JSON otherwise."""
    data_dir: Path = Path(".data")
    """Where the embedded services keep their files and sockets."""
    metrics_port: Annotated[int, Field(ge=0, le=65_435)] = 0  # and 100 above it
    """Prometheus endpoint of this process on loopback; 0: none."""
    otel_exporter_otlp_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """Base URL of a collector of traces, by OTLP over HTTP. Nothing set: none are made."""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the utterances that are traced."""

    def traces(self) -> tuple[str, float]:
        """What ``runtime.tracing.start`` wants to know."""
        return self.otel_exporter_otlp_endpoint, self.otel_traces_sampler_arg


class BusSettings(BaseSettings):
    """Where the broker is."""

    broker_frontend: Endpoint = "tcp://127.0.0.1:7101"
    """Gateways' jobs and records; persistence's confirmations."""
    broker_backend: Endpoint = "tcp://127.0.0.1:7102"
    """Workers."""
    broker_events: Endpoint = "tcp://127.0.0.1:7103"
    """Results and records for persistence."""
    bus_keys_dir: Path | None = None
    """CURVE keys (``python -m tools.cli.keys``): the bus is encrypted, and only who has the key of
    its role gets in. Nothing set: neither."""

    def bus_keys(self, role: Role) -> ClientKeys | None:
        """What a process of ``role`` connects with. Ends it if they can't be had."""
        if self.bus_keys_dir is None:
            return None
        try:
            return client_keys(self.bus_keys_dir, role)
        except KeysError as error:
            fail(f"BUS_KEYS_DIR: {error}")


class RedisSettings(BaseSettings):
    """Session metadata and counters."""

    data_dir: Path = Path(".data")
    redis_url: SecretStr | None = None
    """Nothing set: the embedded server's socket."""

    def redis_address(self) -> str:
        """URL for ``redis.from_url``."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{embedded_socket_dir(self.data_dir)}/redis.sock"


class DatabaseSettings(BaseSettings):
    """PostgreSQL: ``DATABASE_URL``, or the ``DB_*`` names, or the embedded server."""

    data_dir: Path = Path(".data")
    database_url: SecretStr | None = None
    db_host: str | None = None
    db_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    db_user: str = "root"
    db_password: SecretStr = SecretStr("")
    db_name: str = "root"

    def database_address(self) -> str:
        """Connection URL for psycopg."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.db_host is not None:
            password = quote(self.db_password.get_secret_value(), safe="")
            user = quote(self.db_user, safe="")
            login = f"{user}:{password}" if password else user
            host = quote(self.db_host, safe="")
            return f"postgresql://{login}@{host}:{self.db_port}/{quote(self.db_name, safe='')}"
        directory = quote(str(embedded_socket_dir(self.data_dir)), safe="")
        # The port is part of the socket's name; PGPORT in the environment must not change it.
        return f"postgresql://postgres@/postgres?host={directory}&port=5432"

    def database_is_embedded(self) -> bool:
        return self.database_url is None and self.db_host is None


def embedded_socket_dir(data_dir: Path) -> Path:
    """Where the embedded services' Unix sockets are: computed, so that every process finds them
    without being told. A data directory too deep for a socket path gets one under ``/tmp``,
    named by a hash of it."""
    absolute = data_dir.absolute()
    directory = absolute / "run"
    longest = directory / ".s.PGSQL.5432.lock"
    if len(os.fsencode(longest)) <= UNIX_SOCKET_PATH_BYTES_MAX:
        return directory
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    return Path("/tmp") / f"asr-{os.getuid()}-{digest}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


HONCHO_DEFAULT_PORT = 5000
DEFAULT_HTTP_PORT = 8080


def http_port(environ: dict[str, str] | os._Environ[str]) -> tuple[int | str, str]:
    """The HTTP port to serve and where it came from.

    honcho sets ``PORT`` for every process (base + 100 per process type + its index), and its base
    is 5000 when nobody said otherwise. The gateway is the Procfile's first line, so base + index
    is undone here: ``-c gateway=2`` must share one port, and nothing set must mean 8080.
    """
    raw = environ.get("PORT")
    if raw is None:
        return DEFAULT_HTTP_PORT, "default"
    name, _, index = environ.get("HONCHO_PROCESS_NAME", "").rpartition(".")
    if name != "gateway" or not index.isdigit() or not raw.isdigit():
        return raw, "environment PORT"
    base = int(raw) - (int(index) - 1)
    if base == HONCHO_DEFAULT_PORT:
        return DEFAULT_HTTP_PORT, "default"
    return base, "environment PORT, through honcho"


S = TypeVar("S", bound=ProcessSettings)


def load(settings_type: type[S], **overrides: Any) -> S:
    """Settings from the environment. A wrong value prints one line and exits with CONFIG."""
    try:
        return settings_type(**overrides)
    except ValidationError as error:
        parts = []
        for item in error.errors(include_url=False, include_input=False):
            name = ".".join(str(part) for part in item["loc"]).upper() or "settings"
            parts.append(f"{name}: {item['msg']}")
        fail("; ".join(parts))


def fail(message: str, code: int = exit_codes.CONFIG) -> NoReturn:
    """End this process with one line that says what the operator must change."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)


def describe(settings: ProcessSettings) -> dict[str, str]:
    """Each effective setting as ``value (source)``, secrets masked."""
    described = {}
    for name, field in type(settings).model_fields.items():
        alias = field.validation_alias
        names = [name, *(alias.choices if isinstance(alias, AliasChoices) else [])]
        in_environment = any(str(n).upper() in os.environ for n in names)
        source = "environment" if in_environment else "default"
        described[name] = f"{_masked(getattr(settings, name))} ({source})"
    return described


def _masked(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else "''"
    return str(value)


def log_effective(settings: ProcessSettings, **sources: str) -> None:
    """One log line with every setting; ``sources`` overrides what ``describe`` can't know."""
    structlog.get_logger().info("settings", **{**describe(settings), **sources})
