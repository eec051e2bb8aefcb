from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from unittest.mock import Mock

import psycopg.conninfo
import pydantic
import pytest
import structlog
from pydantic import SecretStr

from runtime import exit_codes, settings

NAMES = ("LOG_LEVEL", "LOG_FORMAT", "DATA_DIR", "METRICS_PORT", "REDIS_URL", "DATABASE_URL")
DB_NAMES = ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME")


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *DB_NAMES, "PORT", "HONCHO_PROCESS_NAME"):
        monkeypatch.delenv(name, raising=False)


class Everything(
    settings.BusSettings,
    settings.RedisSettings,
    settings.DatabaseSettings,
    settings.ProcessSettings,
):
    pass


@pytest.mark.parametrize("value", ["debug", "DEBUG", "Debug", " debug "])
def test_log_level_in_any_case(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOG_LEVEL", value)
    assert settings.load(settings.ProcessSettings).log_level == "debug"


@pytest.mark.parametrize("name", ["log_level", "LOG_LEVEL", "Log_Level"])
def test_names_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "error")
    assert settings.load(settings.ProcessSettings).log_level == "error"


@pytest.mark.parametrize("value", ["", " ", "\t", "\r\n"])
def test_a_blank_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("METRICS_HOST", "METRICS_PORT", "DATA_DIR", "DATABASE_URL", "LOG_FORMAT"):
        monkeypatch.setenv(name, value)
    values = settings.load(Everything)
    assert (values.metrics_host, values.metrics_port, values.log_format) == ("127.0.0.1", 0, "auto")
    assert values.data_dir == Path(".data")
    assert values.database_is_embedded()
    assert "default" in settings.describe(values)["metrics_port"]


def test_blanks_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a file of settings with the line ends of another system leaves them.
    monkeypatch.setenv("METRICS_HOST", " [::1]\r")
    monkeypatch.setenv("DB_HOST", "host")
    monkeypatch.setenv("DB_PASSWORD", " a b ")
    values = settings.load(Everything)
    assert values.metrics_host == "::1"
    assert values.db_password.get_secret_value() == " a b "


def test_a_path_may_begin_with_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/anna")
    monkeypatch.setenv("DATA_DIR", "~/asr")
    assert settings.load(Everything).data_dir == Path("/srv/anna/asr")


def test_a_misspelt_name_is_logged_and_that_of_another_process_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTH_TOKEN_FILE", "/etc/asr/tokens")
    monkeypatch.setenv("ASR_MODELS", "a=demo")
    with structlog.testing.capture_logs() as logs:
        settings.log_effective(settings.load(Everything))
    assert [line for line in logs if line["event"] == "setting_unknown"] == [
        {
            "event": "setting_unknown",
            "log_level": "warning",
            "name": "AUTH_TOKEN_FILE",
            "did_you_mean": "AUTH_TOKENS_FILE",
        }
    ]


@pytest.mark.parametrize(
    "name, value, cls",
    [
        ("LOG_LEVEL", "loud", "ProcessSettings"),
        ("LOG_FORMAT", "xml", "ProcessSettings"),
        ("METRICS_PORT", "65536", "ProcessSettings"),
        ("METRICS_PORT", "9700/tcp", "ProcessSettings"),
        ("METRICS_HOST", "*", "ProcessSettings"),
        ("METRICS_HOST", "127.0.0.1:9700", "ProcessSettings"),
        ("METRICS_HOST", "http://127.0.0.1", "ProcessSettings"),
        ("METRICS_HOST", "host..example", "ProcessSettings"),
        ("METRICS_HOST", "h" * 64, "ProcessSettings"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "ProcessSettings"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "ProcessSettings"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1", "ProcessSettings"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:99999", "ProcessSettings"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector..example", "ProcessSettings"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{'ü' * 60}.example", "ProcessSettings"),
        ("REDIS_URL", f"redis://{'ü' * 60}", "RedisSettings"),
        ("BROKER_FRONTEND", "127.0.0.1:7101", "BusSettings"),
        ("BROKER_EVENTS", "udp://127.0.0.1:7101", "BusSettings"),
        ("BROKER_BACKEND", "tcp://host", "BusSettings"),
        ("SYSTEM_ID", "two words", "BusSettings"),
        ("REDIS_URL", "localhost:6379", "RedisSettings"),
        ("REDIS_URL", "redis+sentinel://host:26379/0", "RedisSettings"),
        ("REDIS_URL", "rediss://host?ssl_ca_certs=/nowhere/ca.pem", "RedisSettings"),
        ("DB_PORT", "0", "DatabaseSettings"),
    ],
)
def test_an_invalid_value_prints_one_line_and_exits_with_78(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    cls: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        settings.load(getattr(settings, cls))
    assert ended.value.code == exit_codes.CONFIG == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {name}: ")
    assert err.count("\n") == 1
    assert "Value error" not in err


def test_a_message_that_cannot_be_written_does_not_change_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Mock(write=Mock(side_effect=OSError("full disk"))))
    with pytest.raises(SystemExit) as ended:
        settings.fail("any")
    assert ended.value.code == exit_codes.CONFIG


def test_a_removed_directory_has_no_relative_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(SystemExit) as ended:
        settings.load(Everything)
    assert ended.value.code == exit_codes.CONFIG
    assert capsys.readouterr().err.startswith("error: DATA_DIR is relative")
    monkeypatch.setenv("DATA_DIR", "/srv/asr")
    assert settings.load(Everything)


def test_a_value_that_is_not_utf_8_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", os.fsdecode(b"/srv/caf\xe9"))
    with pytest.raises(SystemExit):
        settings.load(Everything)
    assert capsys.readouterr().err == "error: settings: DATA_DIR holds bytes that are not UTF-8\n"


def test_only_a_broker_may_have_the_address_that_means_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BROKER_FRONTEND", "tcp://*:7101")
    monkeypatch.setenv("BROKER_BACKEND", "tcp://host:7102")
    settings.load(Everything)

    class Connecting(Everything):
        connects_to = ("broker_frontend", "broker_backend")

    with pytest.raises(pydantic.ValidationError, match="must name the broker's host") as refused:
        Connecting()
    assert [error["loc"] for error in refused.value.errors()] == [("broker_frontend",)]


def test_too_few_open_files_are_one_line_that_names_the_limit() -> None:
    program = [sys.executable, "-m", "persistence"]
    limited = ["sh", "-c", 'ulimit -n 20; exec "$@"', "sh", *program]
    ended = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == exit_codes.UNAVAILABLE
    assert ended.stderr == "error: 20 open files are allowed, 256 are needed: raise `ulimit -n`\n"


def test_the_error_names_every_invalid_setting_and_shows_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_PORT", "s3cret-by-mistake")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(SystemExit) as ended:
        settings.load(Everything)
    assert ended.value.code == exit_codes.CONFIG
    error = capsys.readouterr().err
    assert "DB_PORT: " in error
    assert "LOG_FORMAT: " in error
    assert "s3cret" not in error


# ----------------------------------------------------------------------------------------- database


def connection(**environment: str) -> dict[str, str]:
    """Connection parameters as psycopg parses them, under the given environment."""
    address = Everything.model_validate(environment).database_address()
    return {name: str(v) for name, v in psycopg.conninfo.conninfo_to_dict(address).items()}


def test_the_db_names() -> None:
    assert connection(
        db_host="db.example", db_port="6432", db_user="asr", db_password="p", db_name="speech"
    ) == {
        "host": "db.example",
        "port": "6432",
        "user": "asr",
        "password": "p",
        "dbname": "speech",
    }


@pytest.mark.parametrize("name", ["DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"])
def test_the_db_names_need_a_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1234")
    with pytest.raises(pydantic.ValidationError, match=f"{name}: DB_HOST is not set"):
        Everything()
    for address in ("DB_HOST", "DATABASE_URL"):
        with monkeypatch.context() as given:
            given.setenv(address, "postgresql://host/db")
            Everything()


def test_the_db_names_may_hold_any_character() -> None:
    odd = "a b/c@d:e?f#g%h'é"
    parsed = connection(db_host="db.example", db_user=odd, db_password=odd, db_name=odd)
    assert parsed["user"] == parsed["password"] == parsed["dbname"] == odd


@pytest.mark.parametrize("host", ["::1", "/var/run/postgresql"])
def test_the_host_may_be_an_ipv6_address_or_a_socket_directory(host: str) -> None:
    parsed = connection(db_host=host)
    assert parsed["host"] == host
    assert "password" not in parsed


def test_database_url_comes_before_the_db_names() -> None:
    url = "postgresql://u:p@one.example/db"
    values = Everything.model_validate({"database_url": url, "db_host": "two.example"})
    assert values.database_address() == url
    assert not values.database_is_embedded()


def test_the_embedded_services_are_the_default(tmp_path: Path) -> None:
    values = Everything(data_dir=tmp_path)
    assert values.database_is_embedded()
    assert connection(data_dir=str(tmp_path))["host"] == str(tmp_path / "run")
    assert values.redis_address() == f"unix://{tmp_path}/run/redis.sock"


def test_redis_url() -> None:
    values = Everything(redis_url=SecretStr("redis://:p@cache.example/1"))
    assert values.redis_address() == "redis://:p@cache.example/1"


# ---------------------------------------------------------------------------------------- endpoints


def test_endpoints_that_are_not_set_are_sockets_in_the_data_directory(tmp_path: Path) -> None:
    values = Everything(data_dir=tmp_path, broker_events="tcp://127.0.0.1:7103", broker_backend="")
    assert values.broker_frontend == f"ipc://{tmp_path}/run/frontend.sock"
    assert values.broker_backend == f"ipc://{tmp_path}/run/backend.sock"
    assert values.broker_events == "tcp://127.0.0.1:7103"


# ---------------------------------------------------------------------------------------- http port


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, 8080),
        ({"PORT": "9000"}, "9000"),
        ({"PORT": "nonsense"}, "nonsense"),
        # honcho's default base is 5000.
        ({"PORT": "5000", "HONCHO_PROCESS_NAME": "gateway.1"}, 8080),
        ({"PORT": "5001", "HONCHO_PROCESS_NAME": "gateway.2"}, 8080),
        # PORT=9000 honcho start -c gateway=2
        ({"PORT": "9000", "HONCHO_PROCESS_NAME": "gateway.1"}, 9000),
        ({"PORT": "9001", "HONCHO_PROCESS_NAME": "gateway.2"}, 9000),
        ({"PORT": "9011", "HONCHO_PROCESS_NAME": "gateway.12"}, 9000),
        ({"PORT": "nonsense", "HONCHO_PROCESS_NAME": "gateway.1"}, "nonsense"),
        # A gateway started by another process under honcho keeps its PORT.
        ({"PORT": "9000", "HONCHO_PROCESS_NAME": "tests.1"}, "9000"),
    ],
)
def test_http_port(environ: dict[str, str], expected: int | str) -> None:
    port, source = settings.http_port(environ)
    assert port == expected
    assert (source == "default") == (expected == 8080)


def test_the_gateway_is_the_first_line_of_the_procfile() -> None:
    # honcho counts PORT up by 100 a line; http_port undoes the index within the line only.
    procfile = Path(__file__).parents[2] / "Procfile"
    assert procfile.read_text().startswith("gateway: ")


# ----------------------------------------------------------------------------------------- describe


def test_effective_settings_show_their_source_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@one.example/db")
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    monkeypatch.setenv("METRICS_PORT", "9100")
    values = settings.load(Everything)
    with structlog.testing.capture_logs() as logs:
        settings.log_effective(values, data_dir="here (set by a test)")
    (line,) = logs
    assert line["event"] == "settings"
    assert line["metrics_port"] == "9100 (environment)"
    assert line["log_format"] == "auto (default)"
    assert line["data_dir"] == "here (set by a test)"
    assert line["database_url"] == "*** (environment)"
    assert line["db_password"] == "*** (environment)"
    assert line["redis_url"] == "None (default)"
    assert "s3cret" not in str(logs)
    assert "s3cret" not in repr(values)


def test_a_login_in_another_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:s3cret@collector.example")
    described = settings.describe(settings.load(Everything))
    shown = "https://***@collector.example (environment)"
    assert described["otel_exporter_otlp_endpoint"] == shown


def test_an_empty_secret_shows_that_it_is_empty() -> None:
    assert settings.describe(Everything())["db_password"] == "'' (default)"


def test_an_alias_in_the_environment_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    class Aliased(settings.ProcessSettings):
        workers: int = pydantic.Field(
            1, validation_alias=pydantic.AliasChoices("WORKERS", "MIN_WORKERS")
        )

    monkeypatch.setenv("MIN_WORKERS", "3")
    assert settings.describe(settings.load(Aliased))["workers"] == "3 (environment)"


def test_an_invalid_value_is_reported_under_the_name_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Aliased(settings.ProcessSettings):
        workers: Annotated[
            int,
            pydantic.Field(ge=1, validation_alias=pydantic.AliasChoices("WORKERS", "MIN_WORKERS")),
        ] = 1

    monkeypatch.setenv("WORKERS", "")
    monkeypatch.setenv("MIN_WORKERS", "0")
    with pytest.raises(SystemExit):
        settings.load(Aliased)
    assert capsys.readouterr().err.startswith("error: MIN_WORKERS: ")


class Renaming(settings.ProcessSettings):
    admit_rate: Annotated[
        float, pydantic.Field(le=10, validation_alias=settings.Renamed("ADMIT_RATE", "DEMAND_X"))
    ] = 0.5


@pytest.mark.parametrize(
    "environment, value, warnings",
    [
        ({}, 0.5, 0),
        ({"ADMIT_RATE": "2"}, 2.0, 0),
        ({"DEMAND_X": "3"}, 3.0, 1),
        ({"demand_x": "3"}, 3.0, 1),
        ({"ADMIT_RATE": "2", "DEMAND_X": "3"}, 2.0, 1),
    ],
)
def test_the_old_name_of_a_setting_works_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], value: float, warnings: int
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    values = settings.load(Renaming)
    assert values.admit_rate == value
    with structlog.testing.capture_logs() as logs:
        settings.log_effective(values)
    line, *warned = logs
    source = "environment" if environment else "default"
    assert line["admit_rate"] == f"{value} ({source})"
    assert warned == warnings * [
        {
            "event": "setting_renamed",
            "log_level": "warning",
            "old_name": "DEMAND_X",
            "name": "ADMIT_RATE",
        }
    ]


def test_an_invalid_value_under_the_old_name_is_reported_under_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMAND_X", "11")
    with pytest.raises(SystemExit):
        settings.load(Renaming)
    assert "ADMIT_RATE: " in capsys.readouterr().err
