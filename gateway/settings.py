"""Settings of the gateway, from the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from persistence.settings import CheckedDatabaseSettings
from runtime.endpoints import is_loopback
from runtime.metrics import INSTANCES_MAX, PORT_OFFSETS
from runtime.settings import (
    BusSettings,
    FilePath,
    Host,
    HttpUrl,
    ProcessSettings,
    RedisSettings,
    Renamed,
    http_port,
)

JSON_BYTES_MAX = 4_096
"""Size limit of a chunk message without its base64."""


def _entries_of(listed: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [entry for entry in map(str.strip, listed.split(",")) if entry]


def _networks(listed: str) -> str:
    for name in (names := _entries_of(listed)):
        if name != "*":
            ipaddress.ip_network(name)
    return ",".join(names)


def _entries(form: str, meaning: str) -> AfterValidator:
    """Each entry of a comma-separated list matches the regular expression ``form``."""

    def checked(listed: str) -> str:
        for entry in _entries_of(listed):
            if not re.fullmatch(form, entry, re.ASCII | re.IGNORECASE):
                raise ValueError(f"{entry!r} is not {meaning}")
        return listed

    return AfterValidator(checked)


Origins = Annotated[
    str,
    _entries(
        r"\*|null|https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?/?",
        "http://NAME or https://NAME, with a port if it is no default one",
    ),
]
HostNames = Annotated[
    str,
    _entries(
        r"\*|(\*\.)?[\w-]+(\.[\w-]+)*\.?|[0-9a-f:]+",
        "a name without scheme and port, or *.NAME for all below it",
    ),
]


class GatewaySettings(BusSettings, RedisSettings, CheckedDatabaseSettings, ProcessSettings):
    """Environment variables of the gateway, named as the fields in upper case."""

    connects_to = ("broker_frontend",)
    host: Host = "127.0.0.1"
    """Address to serve on. Not loopback: needs tokens, or ``ALLOW_PUBLIC_WITHOUT_AUTH=true``."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    auth_tokens_file: FilePath | None = None
    """Requests need one of these tokens (``asr token``). Not set: every request is allowed."""
    jwt_keys_url: HttpUrl = ""
    """URL of an identity provider's keys (a JWK set). Its signed JWTs are tokens, too."""
    jwt_issuer: str = ""
    """The claim ``iss`` of these JWTs. Needed with ``JWT_KEYS_URL``."""
    jwt_audience: str = ""
    """Their claim ``aud``. Needed with ``JWT_KEYS_URL``."""
    jwt_tenant_claim: str = ""
    """Name of the claim with the tenant. Empty: all have the tenant ``default``."""
    allow_public_without_auth: bool = False
    tls_cert_file: FilePath | None = None
    """Certificate chain in PEM: the gateway serves HTTPS and WSS only. Needs ``TLS_KEY_FILE``."""
    tls_key_file: FilePath | None = None
    """Its private key in PEM, without a password."""
    forwarded_allow_ips: Annotated[str, AfterValidator(_networks)] = "127.0.0.1,::1"
    """Comma-separated addresses and networks of reverse proxies, whose ``X-Forwarded-For``,
    ``-Proto`` and ``-Host`` are believed; ``*``: everybody's."""
    allowed_origins: Origins = ""
    """Comma-separated web origins that may use the gateway, besides its own; ``*``: all."""

    allowed_hosts: HostNames = ""
    """Comma-separated names, besides those without a dot and the machine's, under which clients
    reach the gateway; ``*.example.org``: all below that one, ``*``: all. Not used where
    requests need a token."""

    max_connections: Annotated[int, Field(ge=0)] = 1_000
    """WebSockets of all gateways; further ones get 503. 0: no limit."""
    idle_connections_max: Annotated[int, Field(ge=0)] = 500
    """WebSockets of each gateway that have no session; further ones get 503. 0: no limit."""
    idle_connections_per_address_max: Annotated[int, Field(ge=0)] = 250
    """The same from one client address. 0: no limit."""
    min_workers: Annotated[int, Field(ge=0)] = 1
    """With fewer ready workers of its model a new session gets 503."""
    asr_default_model: str = ""
    """Served name of the model of sessions that ask for none. Empty: the first of ``ASR_MODELS``,
    if the gateway has that setting, else the first one served in alphabetical order."""
    asr_models: Annotated[
        str, _entries(r"\s*[a-z0-9][a-z0-9._-]{0,63}\s*=\s*\S.*", "NAME=MODEL")
    ] = ""
    """As of the workers, which check the models."""
    est_wait_ms_max: Annotated[int, Field(ge=0)] = 3_000
    """Expected wait for a result; above it new sessions get 503."""
    admit_utilisation_max: Annotated[float, Field(ge=0)] = 0.88
    """Utilisation of the workers: audio arriving per second, new sessions included, over audio
    recognised per second, and the share of their time that partial results take; above it new
    sessions get 503. 0: no limit."""
    admit_p95_ms_max: Annotated[int, Field(ge=0)] = 3_000
    """Expected 95th percentile of the time from the end of an utterance to its result; above it new
    sessions get 503. 0: no limit."""
    admit_session_audio_rate: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            validation_alias=Renamed("ADMIT_SESSION_AUDIO_RATE", "ADMIT_SESSION_DEMAND_X"),
        ),
    ] = 0.85
    """Seconds of audio per second expected of a new session until it is measured."""
    admit_sessions_per_s_max: Annotated[float, Field(ge=0)] = 100.0
    """New sessions per second and gateway; further ones get 503. 0: no limit."""
    admit_busy_max: Annotated[float, Field(ge=0, le=1)] = 0.86
    """Share of time in which the gateway's event loop runs or waits for a processor, new sessions
    included, audio that arrives faster than real time excluded; above it new sessions get 503. 0:
    no limit."""
    admit_delay_ms_max: Annotated[int, Field(ge=0)] = 300
    """Time that the gateway takes for one frame of audio; above it new sessions get 503. 0: no
    limit."""
    chunk_bytes_max: Annotated[int, Field(ge=1024, le=1 << 26)] = 1 << 26
    """Largest chunk of audio, decoded; a larger one closes the connection with 1009."""
    large_messages_bytes_max: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Bytes of large messages of all connections of a gateway, being received or processed. Beyond
    it connections wait, but for one; at least one message is always received."""
    session_audio_s_max: Annotated[int, Field(ge=1)] = 4 * 3600
    """Longest audio of a session; then ``audio_too_long``."""
    resume_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Time that a session waits after its client disconnects; then it ends as ``abandoned``. Its
    final result is kept as long, to be sent again."""
    segment_deadline_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    """From the end of an utterance to its result; then the segment fails with ``deadline``."""
    decoders_max: Annotated[int, Field(ge=1)] = 64
    """Decoder processes for encoded audio; further streams fail with ``overloaded``."""
    uploads_max: Annotated[int, Field(ge=1)] = 16
    """Concurrent uploads of each gateway; further ones get 429 ``too_many_uploads``."""
    upload_bytes_max: Annotated[int, Field(ge=1024)] = 512 << 20
    """Largest upload; a larger one gets 413 ``file_too_large``. It is kept in ``TMPDIR``."""
    jobs_max: Annotated[int, Field(ge=0)] = 1_000
    """Files submitted for later in ``DATA_DIR/jobs``; further ones get 429 ``too_many_jobs``."""
    jobs_bytes_max: Annotated[int, Field(ge=1024)] = 8 << 30
    """Their bytes; a file that does not fit gets the same."""
    outbox_records_max: Annotated[int, Field(ge=100)] = 200_000
    """Records waiting to be stored; from then on new sessions get 503 ``storage_backlog``."""
    endpoint_silence_ms: Annotated[int, Field(ge=200, le=3000)] = 600
    """Silence that ends an utterance (endpoint)."""
    speaker_similarity_min: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Mean cosine of speaker embeddings from which on two groups of utterances are one speaker.
    Lower: fewer speakers."""

    @model_validator(mode="before")
    @classmethod
    def _port_from_honcho(cls, values: Any) -> Any:
        if isinstance(values, dict) and "port" in {str(name).lower() for name in values}:
            port, _ = http_port(os.environ)
            return {**{k: v for k, v in values.items() if str(k).lower() != "port"}, "port": port}
        return values

    @model_validator(mode="after")
    def _public_needs_consent(self) -> GatewaySettings:
        consent = self.needs_tokens or self.allow_public_without_auth
        if not consent and not is_loopback(self.host):
            raise ValueError(
                f"HOST {self.host} is not loopback and every request would be allowed; set "
                "AUTH_TOKENS_FILE or JWT_KEYS_URL, or ALLOW_PUBLIC_WITHOUT_AUTH=true if a reverse "
                "proxy authenticates clients"
            )
        return self

    @model_validator(mode="after")
    def _port_is_not_one_of_the_metrics(self) -> GatewaySettings:
        first = self.metrics_port + PORT_OFFSETS["gateway"]
        last = first + INSTANCES_MAX["gateway"] - 1
        if self.metrics_port and first <= self.port <= last:
            raise ValueError(
                f"PORT {self.port} is one of METRICS_PORT {self.metrics_port}: gateways serve "
                f"metrics on {first} to {last}"
            )
        return self

    @model_validator(mode="after")
    def _certificate_has_key(self) -> GatewaySettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE are needed together")
        return self

    @model_validator(mode="after")
    def _jwt_settings_are_complete(self) -> GatewaySettings:
        """Without the keys, the others would have no effect, and no request would need a token."""
        given = [bool(each) for each in (self.jwt_keys_url, self.jwt_issuer, self.jwt_audience)]
        if any([*given, bool(self.jwt_tenant_claim)]) and not all(given):
            raise ValueError("JWT_KEYS_URL, JWT_ISSUER and JWT_AUDIENCE are needed together")
        return self

    @property
    def needs_tokens(self) -> bool:
        return self.auth_tokens_file is not None or bool(self.jwt_keys_url)

    @property
    def spool_directory(self) -> Path:
        return self.data_dir / "spool"

    @property
    def jobs_directory(self) -> Path:
        """Of files submitted for later."""
        return self.data_dir / "jobs"

    @property
    def scheme(self) -> str:
        return "http" if self.tls_cert_file is None else "https"

    @property
    def host_names(self) -> list[str]:
        """Names under which clients may reach the gateway without a token."""
        return _entries_of(f"{self.allowed_hosts},{self.host}")

    @property
    def model_names(self) -> list[str]:
        """The served names in ``ASR_MODELS``."""
        return [entry.partition("=")[0].strip() for entry in _entries_of(self.asr_models)]

    @property
    def default_model(self) -> str:
        """Served name; empty if no setting names one."""
        return self.asr_default_model or next(iter(self.model_names), "")

    @property
    def message_bytes_max(self) -> int:
        """Largest WebSocket message: a chunk in base64, and the rest of its JSON."""
        return -(-self.chunk_bytes_max // 3) * 4 + JSON_BYTES_MAX
