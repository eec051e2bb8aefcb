"""Settings of persistence."""

from __future__ import annotations

from typing import Annotated, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, model_validator

from persistence.batch_buffer import Limits
from runtime import endpoints
from runtime.settings import BusSettings, DatabaseSettings, ProcessSettings, RedisSettings


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
                "postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE"
            ) from None
        # An abstract socket begins with @. Another one would put a part of a password into logs.
        if any("@" in host[1:] for host in str(found.get("host", "")).split(",")):
            raise ValueError(f"{name} has an @ in its host; in a password, it is written %40")
        if not str(found.get("port", 0)).replace(",", "0").isdigit():
            raise ValueError(f"{name} has a port that is no number")
        return self


class PersistenceSettings(CheckedDatabaseSettings, RedisSettings, BusSettings, ProcessSettings):
    """Read from environment variables, which have the upper-case names of the fields."""

    connects_to = ("broker_frontend", "broker_events")
    persistence_batch_rows_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    persistence_batch_wait_ms: Annotated[int, Field(ge=0, le=5_000)] = 10
    """Longest time that an incomplete batch waits for more rows. It matters only at low load: while
    one batch is written, the next one fills."""
    persistence_pending_rows_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Rows kept in memory while the database is unavailable. Further ones are dropped, and gateways
    send them again."""
    persistence_pending_mib_max: Annotated[int, Field(ge=1, le=65_536)] = 256
    persistence_write_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A batch that takes longer counts as a lost connection."""

    session_lost_s: Annotated[float, Field(ge=60, le=31_536_000)] = 3_600.0
    """An active session is marked ``lost`` if nothing of it was stored for this long."""

    retention_days: Annotated[float, Field(ge=0, le=36_500)] = 0.0
    """Sessions and their texts are deleted this long after their start, once they have ended. 0:
    never."""

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
