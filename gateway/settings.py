"""The gateway's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from runtime.settings import (
    BusSettings,
    DatabaseSettings,
    ProcessSettings,
    RedisSettings,
    Renamed,
    http_port,
    is_loopback,
)

JSON_BYTES_MAX = 4_096
"""What may stand around a chunk's base64 in its message."""


class GatewaySettings(BusSettings, RedisSettings, DatabaseSettings, ProcessSettings):
    """Environment variables of the gateway, by these names in upper case."""

    host: str = "127.0.0.1"
    """Address to serve on. Not loopback: needs tokens, or ``ALLOW_PUBLIC_WITHOUT_AUTH=true``."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    auth_tokens_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """Who shows one of these tokens is let in (``asr token``). Nothing set:
    everybody is."""
    allow_public_without_auth: bool = False
    allowed_origins: str = ""
    """Comma-separated web origins besides our own that may open a WebSocket; ``*``: any."""

    max_connections: Annotated[int, Field(ge=0)] = 1_000
    """WebSockets over all gateways; then 503. 0: no limit."""
    min_workers: Annotated[int, Field(ge=0)] = 1
    """Fewer ready workers: 503."""
    est_wait_ms_max: Annotated[int, Field(ge=0)] = 3_000
    """Longer expected wait for a result: new sessions get 503."""
    admit_utilisation_max: Annotated[float, Field(ge=0)] = 0.88
    """Audio arriving per second, that of new sessions included, over what the workers recognise
    per second; above it new sessions get 503. 0: no limit."""
    admit_session_audio_rate: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            validation_alias=Renamed("ADMIT_SESSION_AUDIO_RATE", "ADMIT_SESSION_DEMAND_X"),
        ),
    ] = 0.85
    """Seconds of audio per second that a new session is expected to bring, until it is measured."""
    admit_sessions_per_s_max: Annotated[float, Field(ge=0)] = 100.0
    """New sessions per second of each gateway; further ones get 503. 0: no limit."""
    admit_busy_max: Annotated[float, Field(ge=0, le=1)] = 0.82
    """Share of time in which the gateway's event loop works or waits for a processor, new sessions
    included, and what clients send faster than in real time left out; above it new sessions get
    503. 0: no limit."""
    admit_delay_ms_max: Annotated[int, Field(ge=0)] = 300
    """Time that the gateway takes for one frame of audio; above it new sessions get 503. 0: no
    limit."""
    chunk_bytes_max: Annotated[int, Field(ge=1024, le=1 << 26)] = 1 << 20
    """Largest chunk of audio, as base64 or binary; then the connection is closed with 1009."""
    session_audio_s_max: Annotated[int, Field(ge=1)] = 4 * 3600
    """Longest session; then ``audio_too_long``."""
    resume_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """A session waits so long for a client that lost its connection; then it is ``abandoned``.
    Likewise its final result is kept to be told again."""
    segment_deadline_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    """From an utterance's end to its text; then that segment fails with ``deadline``."""
    decoders_max: Annotated[int, Field(ge=1)] = 64
    """Decoder processes for encoded audio; then ``overloaded``."""
    uploads_max: Annotated[int, Field(ge=1)] = 16
    """Files over HTTP at a time, of each gateway; then 429 ``too_many_uploads``."""
    upload_bytes_max: Annotated[int, Field(ge=1024)] = 512 << 20
    """Largest file over HTTP; then 413 ``file_too_large``. It lies in ``TMPDIR`` meanwhile."""
    outbox_records_max: Annotated[int, Field(ge=100)] = 200_000
    """Records waiting to be stored; then new sessions get 503 ``storage_backlog``."""
    endpoint_silence_ms: Annotated[int, Field(ge=200, le=3000)] = 600
    """Silence that ends an utterance."""

    @model_validator(mode="before")
    @classmethod
    def _port_from_honcho(cls, values: Any) -> Any:
        if isinstance(values, dict) and "port" in {str(name).lower() for name in values}:
            port, _ = http_port(os.environ)
            return {**{k: v for k, v in values.items() if str(k).lower() != "port"}, "port": port}
        return values

    @model_validator(mode="after")
    def _public_needs_consent(self) -> GatewaySettings:
        consent = self.auth_tokens_file is not None or self.allow_public_without_auth
        if not consent and not is_loopback(self.host):
            raise ValueError(
                f"HOST {self.host} is not loopback and everybody would be let in; set "
                "AUTH_TOKENS_FILE, or ALLOW_PUBLIC_WITHOUT_AUTH=true if a proxy in front asks "
                "who they are"
            )
        return self

    @property
    def message_bytes_max(self) -> int:
        """Largest WebSocket message: a chunk in base64 and the JSON around it."""
        return -(-self.chunk_bytes_max // 3) * 4 + JSON_BYTES_MAX
