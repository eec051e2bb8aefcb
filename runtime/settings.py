"""Settings: read from the environment, validated at start, logged with their source.

Each package subclasses ``ProcessSettings``, with the mixins it needs, for its own settings, which
docs/settings.md explains.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar
from urllib.parse import quote, urlsplit

import structlog
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime import descriptors, endpoints, exit_codes, redis_address
from runtime.run_directory import run_directory
from runtime.setting_names import NAMES
from wire import keys

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value),
]
Endpoints = Annotated[str, AfterValidator(endpoints.check_list)]


def home_expanded(path: str | Path) -> Path:
    """``~`` is the user's home directory; that of an unknown user is left as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for such a user.


FilePath = Annotated[Path, AfterValidator(home_expanded)]


def _host(value: str) -> str:
    host = value.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if "*" in host:
            raise ValueError("must be one address: 0.0.0.0 or :: for all") from None
        if not host.isascii() or any(char in "/:,[]" or char.isspace() for char in host):
            raise ValueError("must be one address or name, without scheme and port") from None
        endpoints.check_name(host)
    return host


def _http_url(value: str) -> str:
    # The message does not quote the URL, which may hold a password.
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        valid = False
    if value and (not valid or any(char.isspace() for char in value)):
        raise ValueError("must be http://HOST:PORT/PATH or https://HOST:PORT/PATH")
    endpoints.check_name(urlsplit(value).hostname or "")
    return value


Host = Annotated[str, AfterValidator(_host)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class Renamed(AliasChoices):
    """``Field(validation_alias=Renamed("NEW_NAME", "OLD_NAME"))`` accepts the old name for one
    release. The new name takes precedence. ``log_effective`` warns about the old one."""


class Environment(BaseSettings):
    """Settings are read without the blanks around them; an empty one counts as not set."""

    model_config = SettingsConfigDict(
        extra="ignore",
        case_sensitive=False,
        populate_by_name=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    data_dir: FilePath = Path(".data")

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for name, value in values.items():
            if isinstance(value, str):
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise ValueError(f"{name.upper()} holds bytes that are not UTF-8") from None
                value = value if name == "db_password" else value.strip()
            if value != "":
                kept[name] = value
        return kept


class ProcessSettings(Environment):
    """Settings of every process."""

    log_level: LogLevel = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    metrics_port: Annotated[int, Field(ge=0, le=65_435)] = 0  # The 100 ports above it are used too.
    metrics_host: Host = "127.0.0.1"
    otel_exporter_otlp_endpoint: HttpUrl = ""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0


class BusSettings(Environment):
    """Addresses and keys of the bus: of all brokers, separated by commas, or of the broker itself.
    An endpoint that is not set is a Unix socket in the run directory of ``data_dir``."""

    broker_frontend: Endpoints = ""
    broker_backend: Endpoints = ""
    broker_events: Endpoints = ""
    bus_keys_dir: FilePath | None = None
    """Unset: the bus is neither encrypted nor authenticated."""
    system_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "asr"
    connects_to: ClassVar[tuple[str, ...]] = ()
    """The settings of the endpoints to which this process connects."""

    @field_validator("broker_frontend", "broker_backend", "broker_events")
    @classmethod
    def _reachable(cls, value: str, info: ValidationInfo) -> str:
        if info.field_name in cls.connects_to:
            endpoints.check_reachable(value)
        return value

    @model_validator(mode="after")
    def _endpoints_in_data_dir(self) -> Self:
        for name in ("frontend", "backend", "events"):
            if not getattr(self, f"broker_{name}"):
                setattr(self, f"broker_{name}", endpoints.local(self.data_dir, name))
        return self

    def bus_keys(self, role: keys.Role) -> keys.KeyFiles | None:
        """Keys of a process of ``role``, if any. Ends the process if they cannot be read."""
        if self.bus_keys_dir is None:
            return None
        try:
            return keys.KeyFiles(self.bus_keys_dir, role)
        except keys.KeysError as error:
            fail(f"BUS_KEYS_DIR: {error}")


class RedisSettings(Environment):
    """Redis, for session metadata and counters: ``REDIS_URL``, or the embedded server."""

    redis_url: SecretStr | None = None

    @field_validator("redis_url")
    @classmethod
    def _known_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        # The message does not quote the URL, which may hold a password.
        if value is not None:
            for name, path in redis_address.parse(value.get_secret_value()).files:
                if not os.access(path, os.R_OK):
                    raise ValueError(f"{name} {path} cannot be read")
        return value

    def redis_address(self) -> str:
        """URL for ``runtime.redis_clients``."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{run_directory(self.data_dir)}/redis.sock"


class DatabaseSettings(Environment):
    """PostgreSQL: ``DATABASE_URL``, or the ``DB_*`` names, or the embedded server."""

    database_url: SecretStr | None = None
    db_host: str | None = None
    db_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    db_user: str = "root"
    db_password: SecretStr = SecretStr("")
    db_name: str = "root"

    @model_validator(mode="after")
    def _db_names_have_a_host(self) -> Self:
        """Without it they would have no effect, and the embedded server would be used."""
        names = ("db_port", "db_user", "db_password", "db_name")
        given = [name.upper() for name in names if name in self.model_fields_set]
        if given and self.database_is_embedded():
            raise ValueError(f"{', '.join(given)}: DB_HOST is not set")
        return self

    def database_address(self) -> str:
        """Connection URL for psycopg."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        quoted = partial(quote, safe="")
        if self.db_host is not None:
            password = quoted(self.db_password.get_secret_value())
            login = quoted(self.db_user) + (f":{password}" if password else "")
            host, name = quoted(self.db_host), quoted(self.db_name)
            return f"postgresql://{login}@{host}:{self.db_port}/{name}"
        directory = quoted(str(run_directory(self.data_dir)))
        # The port is part of the socket's name. PGPORT in the environment must not change it.
        return f"postgresql://postgres@/postgres?host={directory}&port=5432"

    def database_is_embedded(self) -> bool:
        return self.database_url is None and self.db_host is None


HONCHO_DEFAULT_PORT = 5000
DEFAULT_HTTP_PORT = 8080


def http_port(environ: dict[str, str] | os._Environ[str]) -> tuple[int | str, str]:
    """The HTTP port to serve, and its source for the log.

    honcho sets ``PORT`` to base (by default 5000) + 100 × process type + index, and the gateway is
    the first process type of the Procfile: gateways share the base. 5000 counts as unset.
    """
    raw = environ.get("PORT", "").strip()
    if not raw:
        return DEFAULT_HTTP_PORT, "default"
    name, _, index = environ.get("HONCHO_PROCESS_NAME", "").rpartition(".")
    if name != "gateway" or not index.isdigit() or not raw.isdigit():
        return raw, "environment PORT"
    base = int(raw) - (int(index) - 1)
    if base == HONCHO_DEFAULT_PORT:
        return DEFAULT_HTTP_PORT, "default"
    return base, "environment PORT, through honcho"


_LOGIN = re.compile(r"//[^/@]*@")
"""Of a URL that is no secret itself."""
SIMILARITY_MIN = 0.85
"""Of two names, by difflib, from which on one is taken for a misspelling of the other."""
S = TypeVar("S", bound=ProcessSettings)
PYDANTIC_PREFIX = "Value error, "
"""Of the message of a validator's ValueError."""


def load(settings_type: type[S], **overrides: Any) -> S:
    """Settings from the environment. Invalid ones are reported on one line and end the process with
    ``exit_codes.CONFIG``. Too low a limit on open files ends it with ``UNAVAILABLE``."""
    if message := descriptors.shortage():
        fail(message, exit_codes.UNAVAILABLE)
    try:
        return settings_type(**overrides)
    except FileNotFoundError:
        fail("DATA_DIR is relative to the current directory, which was removed")
    except ValidationError as error:
        parts = []
        for item in error.errors(include_url=False, include_input=False):
            name = _name_given(settings_type, str(item["loc"][0])) if item["loc"] else "settings"
            parts.append(f"{name}: {item['msg'].removeprefix(PYDANTIC_PREFIX)}")
        fail("; ".join(parts))


def _name_given(settings_type: type[S], name: str) -> str:
    """The name under which the environment holds a setting that has several."""
    environment = _names_in_environment()
    for field in settings_type.model_fields.values():
        alias = field.validation_alias
        if type(alias) is AliasChoices and alias.choices[0] == name:
            return next((str(each) for each in alias.choices if each in environment), name)
    return name.upper()


def fail(message: str, code: int = exit_codes.CONFIG) -> NoReturn:
    """End the process with a one-line message that names the setting to change."""
    with contextlib.suppress(OSError):  # On a full disk, the code alone names the cause.
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
    return {name.upper() for name, value in os.environ.items() if value.strip()}


def _masked(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else "''"
    return _LOGIN.sub("//***@", str(value))


def log_effective(settings: ProcessSettings, **sources: str) -> None:
    """Log every setting on one line, and a warning for each old name and each misspelt one in use.
    ``sources`` replaces descriptions of values that a process computes itself."""
    log = structlog.get_logger()
    log.info("settings", **{**describe(settings), **sources})
    environment = _names_in_environment()
    for field in type(settings).model_fields.values():
        if isinstance(field.validation_alias, Renamed):
            name, *old_names = map(str, field.validation_alias.choices)
            for old_name in environment.intersection(old_names):
                log.warning("setting_renamed", old_name=old_name, name=name)
    for unknown in sorted(environment - NAMES):
        if similar := difflib.get_close_matches(unknown, NAMES, 1, SIMILARITY_MIN):
            log.warning("setting_unknown", name=unknown, did_you_mean=similar[0])
