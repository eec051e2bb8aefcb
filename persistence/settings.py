"""Settings of persistence."""

from __future__ import annotations

from typing import Annotated, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, model_validator

from persistence.batch_buffer import Limits
from runtime.settings import BusSettings, DatabaseSettings, ProcessSettings


class PersistenceSettings(DatabaseSettings, BusSettings, ProcessSettings):
    """All of it comes from the environment, under the upper-case names of the fields."""

    persistence_batch_rows_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    persistence_batch_wait_ms: Annotated[int, Field(ge=0, le=5_000)] = 10
    """How long a batch that is not full waits for more. While one batch is written the next
    forms anyway, so this matters only when there is little to do."""
    persistence_pending_rows_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Kept in memory while the database is away; what comes then is dropped, and sent again by
    the gateways."""
    persistence_pending_mib_max: Annotated[int, Field(ge=1, le=65_536)] = 256
    persistence_write_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """A batch that takes longer counts as a lost connection."""

    session_lost_s: Annotated[float, Field(ge=60, le=31_536_000)] = 3_600.0
    """An active session of which nothing is stored for so long is marked ``lost``."""

    @model_validator(mode="after")
    def _address_can_be_read(self) -> Self:
        try:
            conninfo_to_dict(self.database_address())
        except psycopg.ProgrammingError:
            # Not psycopg's words: they quote the URL, and with it the password.
            raise ValueError("DATABASE_URL is no PostgreSQL connection URL") from None
        return self

    def limits(self) -> Limits:
        return Limits(
            batch_rows_max=self.persistence_batch_rows_max,
            batch_wait_s=self.persistence_batch_wait_ms / 1_000,
            pending_rows_max=self.persistence_pending_rows_max,
            pending_bytes_max=self.persistence_pending_mib_max << 20,
        )
