"""Settings of the broker, from environment variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from broker.limits import Limits
from runtime import endpoints
from runtime.settings import BusSettings, ProcessSettings, RedisSettings
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

MEMORY_MB_WITHOUT_QUEUE = 160
"""Address space for data of an idle broker, measured at 71 MB, and as much again."""
MEMORY_PER_QUEUED_AUDIO = 2
"""The audio itself, and the fragmentation of the heap."""


class BrokerSettings(ProcessSettings, BusSettings, RedisSettings):
    """Endpoints to bind, and limits that depend on the machine."""

    allow_public_bus: bool = False
    """Allow endpoints that other hosts can reach without ``BUS_KEYS_DIR``, that is, without
    encryption and authentication."""
    broker_queue_audio_s_max: Annotated[float, Field(ge=1, le=86_400)] = 3_600.0
    """Audio of jobs waiting for a worker, 32 kB of memory per second. Further jobs are answered
    with the error ``overloaded``, and gateways send them again later."""
    broker_queue_jobs_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Jobs waiting for a worker. Further jobs are answered with the error ``overloaded``."""
    broker_lease_s: Annotated[float, Field(ge=2, le=60)] = 5.0
    """A worker or gateway that is silent for longer loses its lease: its jobs are reassigned or
    dropped."""
    broker_attempt_deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """An attempt that takes longer, and five times as long as the worker is expected to take for
    all that it holds, is lost: the job is assigned to another worker, and this one gets no further
    jobs until it makes progress."""

    broker_memory_mb_max: Annotated[int, Field(ge=256, le=1_000_000_000)] = 2_048
    """Memory of the process in MB. At the limit the process ends, is restarted by its supervisor,
    and gateways send their unanswered jobs again. Only a peer with an allowed key can reach it, by
    a message whose frames never end: libzmq keeps them until the last one."""

    @model_validator(mode="after")
    def _queue_fits_into_memory(self) -> BrokerSettings:
        queue_mb = self.broker_queue_audio_s_max * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE / 1e6
        if self.broker_memory_mb_max < MEMORY_MB_WITHOUT_QUEUE + MEMORY_PER_QUEUED_AUDIO * queue_mb:
            raise ValueError(
                f"BROKER_MEMORY_MB_MAX={self.broker_memory_mb_max} is too small for a queue of "
                f"{queue_mb:.0f} MB; raise it or lower BROKER_QUEUE_AUDIO_S_MAX"
            )
        return self

    @field_validator("broker_frontend", "broker_backend", "broker_events")
    @classmethod
    def _its_own(cls, value: str) -> str:
        if len(endpoints.split(value)) > 1:
            raise ValueError("must be the one endpoint that this broker binds, not a list")
        return value

    @model_validator(mode="after")
    def _public_needs_consent(self) -> BrokerSettings:
        for name in ("broker_frontend", "broker_backend", "broker_events"):
            endpoint = getattr(self, name)
            consent = self.allow_public_bus or self.bus_keys_dir
            if endpoints.leaves_host(endpoint) and not consent:
                raise ValueError(
                    f"{name.upper()} {endpoint} is not a loopback address, and the bus trusts "
                    "every peer; set BUS_KEYS_DIR (asr keys creates keys), or "
                    "ALLOW_PUBLIC_BUS=true if the network admits only peers of the bus"
                )
        return self

    def limits(self) -> Limits:
        return Limits(
            queue_audio_ms_max=round(self.broker_queue_audio_s_max * 1000),
            queue_jobs_max=self.broker_queue_jobs_max,
            lease_s=self.broker_lease_s,
            attempt_deadline_s=self.broker_attempt_deadline_s,
        )
