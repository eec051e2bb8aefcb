"""Settings of persistence, see docs/settings.md."""

from __future__ import annotations

from typing import Annotated, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, model_validator

from persistence.batch_buffer import Limits
from runtime import endpoints
from runtime.settings import BusSettings, DatabaseSettings, ProcessSettings, RedisSettings

_ENCODED = "in a password, % is written %25, / %2F, @ %40, a blank %20"


class CheckedDatabaseSettings(DatabaseSettings):
    """With an address that libpq can read. Messages never quote it, for it may hold a password."""

    @model_validator(mode="after")
    def _address_can_be_read(self) -> Self:
        name = "DB_HOST" if self.database_url is None else "DATABASE_URL"
        try:
            found = conninfo_to_dict(self.database_address())
        except psycopg.ProgrammingError:
            raise ValueError(
                f"{name} is not a PostgreSQL connection URL, "
                f"postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE; {_ENCODED}"
            ) from None
        # An abstract socket begins with @. Another one would put a part of a password into logs.
        if any("@" in host[1:] for host in str(found.get("host", "")).split(",")):
            raise ValueError(f"{name} has an @ in its host; {_ENCODED}")
        if not str(found.get("port", 0)).replace(",", "0").isdigit():
            raise ValueError(f"{name} has a port that is no number; {_ENCODED}")
        return self


class PersistenceSettings(CheckedDatabaseSettings, RedisSettings, BusSettings, ProcessSettings):
    connects_to = ("broker_frontend", "broker_events")
    persistence_batch_rows_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    persistence_batch_wait_ms: Annotated[int, Field(ge=0, le=5_000)] = 10
    """It matters only at low load: while one batch is written, the next one fills."""
    persistence_pending_rows_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    persistence_pending_mib_max: Annotated[int, Field(ge=1, le=65_536)] = 256
    persistence_write_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    session_lost_s: Annotated[float, Field(ge=60, le=31_536_000)] = 3_600.0
    retention_days: Annotated[float, Field(ge=0, le=36_500)] = 0.0

    @model_validator(mode="after")
    def _endpoints_in_pairs(self) -> Self:
        if len(endpoints.split(self.broker_events)) != len(endpoints.split(self.broker_frontend)):
            raise ValueError("BROKER_EVENTS and BROKER_FRONTEND must list the same brokers")
        return self

    def limits(self) -> Limits:
        return Limits(
            batch_rows_max=self.persistence_batch_rows_max,
            batch_wait_s=self.persistence_batch_wait_ms / 1_000,
            pending_rows_max=self.persistence_pending_rows_max,
            pending_bytes_max=self.persistence_pending_mib_max << 20,
        )
