"""Settings: read from the environment, validated at start, logged with their source.

Each package subclasses ``ProcessSettings``, with the mixins it needs, for its own settings. An
invalid value ends the process with a one-line message and the exit code ``exit_codes.CONFIG``.
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
from wire import keys

UNIX_SOCKET_PATH_BYTES_MAX = 107
"""Linux's limit on the path of a Unix socket (``man 7 unix``), less the terminating zero."""

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
]
Endpoint = Annotated[str, Field(pattern=r"^(tcp|ipc|inproc)://.+")]


class Renamed(AliasChoices):
    """The name of a setting, then the names it had in earlier releases.

    ``Field(validation_alias=Renamed("NEW_NAME", "OLD_NAME"))`` accepts the old name for one
    release. The new name takes precedence. ``log_effective`` warns about the old one.
    """


class ProcessSettings(BaseSettings):
    """Settings of every process."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, populate_by_name=True)

    log_level: LogLevel = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    """auto: human-readable if standard error is a terminal or honcho's, else JSON."""
    data_dir: Path = Path(".data")
    """Directory of the embedded services' files and sockets, and of the gateways' spool."""
    metrics_port: Annotated[int, Field(ge=0, le=65_435)] = 0  # The 100 ports above it are used too.
    """First port of the Prometheus endpoints on loopback. 0: no endpoint."""
    otel_exporter_otlp_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """Base URL of an OTLP/HTTP trace collector. Empty: no traces."""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the utterances that are traced."""

    def traces(self) -> tuple[str, float]:
        """Arguments of ``runtime.tracing.start``: endpoint and sampling ratio."""
        return self.otel_exporter_otlp_endpoint, self.otel_traces_sampler_arg


class BusSettings(BaseSettings):
    """Addresses and keys of the bus."""

    broker_frontend: Endpoint = "tcp://127.0.0.1:7101"
    """Gateways send jobs and records here, persistence confirmations."""
    broker_backend: Endpoint = "tcp://127.0.0.1:7102"
    """Workers connect here."""
    broker_events: Endpoint = "tcp://127.0.0.1:7103"
    """Persistence subscribes here to results and records."""
    bus_keys_dir: Path | None = None
    """Directory of CURVE keys (``asr keys``). With it the bus is encrypted and
    accepts only peers that hold the key of their role. Unset: neither."""

    def bus_keys(self, role: keys.Role) -> keys.Keys | None:
        """Keys of a process of ``role``, None without ``BUS_KEYS_DIR``. Ends the process if they
        cannot be read."""
        if self.bus_keys_dir is None:
            return None
        try:
            return keys.read(self.bus_keys_dir, role)
        except keys.KeysError as error:
            fail(f"BUS_KEYS_DIR: {error}")


class RedisSettings(BaseSettings):
    """Redis, for session metadata and counters: ``REDIS_URL``, or the embedded server."""

    data_dir: Path = Path(".data")
    redis_url: SecretStr | None = None

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
        # The port is part of the socket's name. PGPORT in the environment must not change it.
        return f"postgresql://postgres@/postgres?host={directory}&port=5432"

    def database_is_embedded(self) -> bool:
        return self.database_url is None and self.db_host is None


def embedded_socket_dir(data_dir: Path) -> Path:
    """Directory of the embedded services' Unix sockets.

    It is a function of ``data_dir`` alone, so that every process finds it without communication.
    If paths in ``data_dir`` would exceed the limit, it is a directory under ``/tmp`` named after
    a hash of ``data_dir``.
    """
    absolute = data_dir.absolute()
    directory = absolute / "run"
    longest = directory / ".s.PGSQL.5432.lock"
    if len(os.fsencode(longest)) <= UNIX_SOCKET_PATH_BYTES_MAX:
        return directory
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    return Path("/tmp") / f"asr-{os.getuid()}-{digest}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


HONCHO_DEFAULT_PORT = 5000
DEFAULT_HTTP_PORT = 8080


def http_port(environ: dict[str, str] | os._Environ[str]) -> tuple[int | str, str]:
    """The HTTP port to serve, and its source for the log.

    honcho sets ``PORT`` to base + 100 × process type + index, with a default base of 5000. The
    gateway is the first process type in the Procfile, so subtracting the index restores the base:
    the gateways of ``-c gateway=2`` share one port. A base of 5000 counts as unset.
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
    """Settings from the environment. Invalid values are reported on one line and end the process
    with ``exit_codes.CONFIG``."""
    try:
        return settings_type(**overrides)
    except ValidationError as error:
        parts = []
        for item in error.errors(include_url=False, include_input=False):
            name = ".".join(str(part) for part in item["loc"]).upper() or "settings"
            parts.append(f"{name}: {item['msg']}")
        fail("; ".join(parts))


def fail(message: str, code: int = exit_codes.CONFIG) -> NoReturn:
    """End the process with a one-line message that names what the operator must change."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)


def describe(settings: ProcessSettings) -> dict[str, str]:
    """Each effective setting as ``value (source)``, secrets masked."""
    environment = _names_in_environment()
    described = {}
    for name, field in type(settings).model_fields.items():
        alias = field.validation_alias
        names = [name, *(alias.choices if isinstance(alias, AliasChoices) else [])]
        found = not environment.isdisjoint(str(each).upper() for each in names)
        source = "environment" if found else "default"
        described[name] = f"{_masked(getattr(settings, name))} ({source})"
    return described


def _names_in_environment() -> set[str]:
    return {name.upper() for name in os.environ}


def _masked(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else "''"
    return str(value)


def log_effective(settings: ProcessSettings, **sources: str) -> None:
    """Log every setting on one line, and a warning for each old name in use. ``sources`` replaces
    descriptions of values that a process computes itself."""
    log = structlog.get_logger()
    log.info("settings", **{**describe(settings), **sources})
    environment = _names_in_environment()
    for field in type(settings).model_fields.values():
        if isinstance(field.validation_alias, Renamed):
            name, *old_names = map(str, field.validation_alias.choices)
            for old_name in environment.intersection(old_names):
                log.warning("setting_renamed", old_name=old_name, name=name)
