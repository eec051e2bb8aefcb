"""Settings of the broker, from the environment."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from broker.limits import Limits
from runtime.settings import BusSettings, ProcessSettings, RedisSettings, fail, is_loopback
from wire.keys import KeysError, ServerKeys, server_keys


class BrokerSettings(ProcessSettings, BusSettings, RedisSettings):
    """Endpoints to bind, and the limits that depend on the machine."""

    allow_public_bus: bool = False
    """Without ``BUS_KEYS_DIR`` the bus is neither encrypted nor authenticated: endpoints that other
    hosts can reach are refused unless this says that the network itself keeps strangers out."""
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

    @model_validator(mode="after")
    def _public_needs_consent(self) -> BrokerSettings:
        for name in ("broker_frontend", "broker_backend", "broker_events"):
            url = urlsplit(getattr(self, name))
            private = url.scheme != "tcp" or is_loopback(url.hostname or "")
            if not (private or self.allow_public_bus or self.bus_keys_dir):
                raise ValueError(
                    f"{name.upper()} {url.geturl()} is not loopback, and whoever reaches the "
                    "bus is trusted; set BUS_KEYS_DIR to keys (python -m tools.cli.keys), or "
                    "ALLOW_PUBLIC_BUS=true if only workers can reach it"
                )
        return self

    def server_keys(self) -> ServerKeys | None:
        """None: everybody may come. Ends the process if the keys can't be had."""
        if self.bus_keys_dir is None:
            return None
        try:
            return server_keys(self.bus_keys_dir)
        except KeysError as error:
            fail(f"BUS_KEYS_DIR: {error}")

    def limits(self) -> Limits:
        return Limits(
            queue_audio_ms_max=round(self.broker_queue_audio_s_max * 1000),
            queue_jobs_max=self.broker_queue_jobs_max,
            lease_s=self.broker_lease_s,
            attempt_deadline_s=self.broker_attempt_deadline_s,
        )
