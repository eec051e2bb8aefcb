"""Settings of the broker, from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from broker.limits import Limits
from runtime.settings import BusSettings, ProcessSettings, RedisSettings


class BrokerSettings(ProcessSettings, BusSettings, RedisSettings):
    """Endpoints to bind, and the limits that depend on the machine."""

    broker_queue_audio_s_max: Annotated[float, Field(ge=1, le=86_400)] = 3_600.0
    """Audio waiting for a worker, 32 kB of memory per second; then jobs are answered
    ``overloaded`` and their gateways send them again later."""
    broker_queue_jobs_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Jobs waiting for a worker; then ``overloaded`` as well."""
    broker_lease_s: Annotated[float, Field(ge=2, le=60)] = 5.0
    """A worker or gateway silent for longer is taken for gone."""
    broker_attempt_deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """A job that its worker has not answered in this time is given to another one. Raise it with
    ``ASR_HANG_S`` for a big model on a slow CPU."""

    def limits(self) -> Limits:
        return Limits(
            queue_audio_ms_max=round(self.broker_queue_audio_s_max * 1000),
            queue_jobs_max=self.broker_queue_jobs_max,
            lease_s=self.broker_lease_s,
            attempt_deadline_s=self.broker_attempt_deadline_s,
        )
