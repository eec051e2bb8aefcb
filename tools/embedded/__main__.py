"""Entry point of the embedded services."""

from __future__ import annotations

from runtime import exit_codes, lifecycle, logging, settings
from tools.embedded.directory import DataDirectory, EmbeddedError
from tools.embedded.postgres import Postgres
from tools.embedded.service import Server, run
from tools.embedded.valkey import Valkey


class EmbeddedSettings(settings.DatabaseSettings, settings.RedisSettings, settings.ProcessSettings):
    """Settings that its clients use, too. A server that they name elsewhere is not started."""


def main() -> int:
    values = settings.load(EmbeddedSettings)
    logging.configure(values.log_level, values.log_format, "embedded")
    settings.log_effective(values)
    stop = lifecycle.StopSignal()
    directory = DataDirectory(values.data_dir)
    try:
        servers: list[Server] = []
        # Servers stop in reverse order: gateways that drain while PostgreSQL stops still need
        # their counters in Valkey.
        if values.redis_url is None:
            servers.append(Valkey(directory))
        if values.database_is_embedded():
            servers.append(Postgres(directory))
        if servers:
            directory.open()
        run(servers, directory, stop)
    except EmbeddedError as error:
        settings.fail(str(error), exit_codes.UNAVAILABLE)
    finally:
        directory.close()
    return exit_codes.OK


if __name__ == "__main__":
    raise SystemExit(main())
