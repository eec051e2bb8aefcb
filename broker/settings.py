"""Settings of the broker, see docs/settings.md."""

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
    allow_public_bus: bool = False
    broker_queue_audio_s_max: Annotated[float, Field(ge=1, le=86_400)] = 3_600.0
    """32 kB of memory per second."""
    broker_queue_jobs_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    broker_lease_s: Annotated[float, Field(ge=2, le=60)] = 5.0
    broker_attempt_deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    broker_memory_mb_max: Annotated[int, Field(ge=256, le=1_000_000_000)] = 2_048
    """At the limit the process ends. Only a peer with an allowed key can reach it, by a message
    whose frames never end: libzmq keeps them until the last one."""

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
            if endpoints.leaves_host(endpoint) and not (self.allow_public_bus or self.bus_keys_dir):
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
