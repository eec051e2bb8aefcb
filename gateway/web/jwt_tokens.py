"""Access tokens of an identity provider: signed JWTs, as in OpenID Connect and RFC 9068.

The provider's keys are a JWK set (RFC 7517), at ``JWT_KEYS_URL``. PyJWT fetches it, keeps it for a
while, and fetches it again for an unknown key, so that a provider may rotate its keys at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import jwt
import structlog

from gateway.web.auth_tokens import SCOPES, Access, hash_of, tenant_of
from gateway.web.errors import RefusedError
from wire.records import DEFAULT_TENANT

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Asymmetric algorithms only: with a symmetric one, a key that checks tokens can also make them."""
CLAIMS: Final = ("iss", "aud", "sub", "exp")
"""Claims that a token must have."""
FETCH_TIMEOUT_S = 5.0
KEPT_S = 300.0
"""Time for which a fetched set is used."""
FETCH_EVERY_S = 30.0
"""Minimum interval of fetches for tokens with an unknown key."""
FAILED_FETCH_EVERY_S = 5.0
"""Minimum interval of fetches after one that failed."""
LEEWAY_S = 30.0
"""Tolerated difference of the provider's clock."""
SUBJECT_CHARS_MAX = 256
KEYS_UNAVAILABLE = "the keys of the identity provider cannot be fetched"


class JwtRefusedError(Exception):
    """The token is not valid. The text is for the client."""


class _Keys(jwt.PyJWKClient):
    """After a failed fetch there is no other one for ``FAILED_FETCH_EVERY_S``, whatever tokens
    clients send. Each failure is logged."""

    _paused_until_s = 0.0
    _failure = ""

    def known(self, name: str) -> jwt.PyJWK | None:
        """Return the key ``name`` if it is in the set in use, without a fetch."""
        kept = self.jwk_set_cache.get() if self.jwk_set_cache is not None else None
        found = kept.keys if kept is not None else ()
        return next(
            (key for key in found if key.key_id == name and key.public_key_use in ("sig", None)),
            None,
        )

    def fetch_data(self) -> Any:
        if time.monotonic() >= self._paused_until_s:
            try:
                return super().fetch_data()
            except (jwt.PyJWTError, ValueError, OSError) as error:
                self._failure = str(error)
                self._paused_until_s = time.monotonic() + FAILED_FETCH_EVERY_S
                structlog.get_logger().error("jwt_keys_unavailable", error=self._failure)
        raise jwt.PyJWKClientConnectionError(self._failure)


class JwtTokens:
    """Checks tokens of one provider."""

    def __init__(self, *, keys_url: str, issuer: str, audience: str, tenant_claim: str) -> None:
        """
        Args:
            keys_url: address of the JWK set, HTTP or HTTPS.
            issuer, audience: required values of the claims ``iss`` and ``aud``.
            tenant_claim: the claim with the tenant; empty: all have the default tenant.
        """
        self._keys = _Keys(
            keys_url, lifespan=KEPT_S, cooldown_duration=FETCH_EVERY_S, timeout=FETCH_TIMEOUT_S
        )
        self._fetching = ThreadPoolExecutor(1, "jwt-keys")
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim

    def fetch_early(self) -> None:
        """Fetch the keys on a thread, so that a wrong address is logged before a client is
        refused."""

        def fetch() -> None:
            with contextlib.suppress(jwt.PyJWTError, ValueError):
                self._keys.get_signing_keys()

        threading.Thread(target=fetch, name="jwt-keys", daemon=True).start()

    async def find(self, token: str) -> tuple[str, Access]:
        """Return the subject of ``token`` and its permissions.

        Raises:
            JwtRefusedError: it is not valid.
            RefusedError: the keys for the check cannot be fetched.
        """
        try:
            key = await self._key_of(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": list(CLAIMS)},
            )
            return self._granted(token, claims)
        except jwt.PyJWKClientConnectionError as error:
            raise RefusedError(503, "keys_unavailable", KEYS_UNAVAILABLE) from error
        except jwt.ExpiredSignatureError:
            raise JwtRefusedError("this token has expired") from None
        except (jwt.PyJWTError, ValueError, OverflowError) as error:
            raise JwtRefusedError(f"this token is not valid: {error}") from None

    async def _key_of(self, token: str) -> jwt.PyJWK:
        name = jwt.get_unverified_header(token).get("kid")
        if not isinstance(name, str):
            raise jwt.InvalidTokenError("its header names no key (kid)")
        key = self._keys.known(name)
        if key is None:
            # In a thread that nothing else waits for: a provider may take FETCH_TIMEOUT_S.
            fetched = self._fetching.submit(self._keys.get_signing_key, name)
            key = await asyncio.wrap_future(fetched)
        if key.algorithm_name not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError("its key is for another algorithm")
        return key

    def _granted(self, token: str, claims: Mapping[str, Any]) -> tuple[str, Access]:
        subject: str = claims["sub"]
        if not (0 < len(subject) <= SUBJECT_CHARS_MAX and subject.isprintable()):
            raise ValueError(f"sub is not a name of 1 to {SUBJECT_CHARS_MAX} characters")
        tenant = DEFAULT_TENANT
        if self._tenant_claim:
            tenant = tenant_of(str(claims.get(self._tenant_claim, "")))
        listed = claims.get("scope", claims.get("scp", ""))  # RFC 9068, and others.
        names = listed.split() if isinstance(listed, str) else listed
        return subject, Access(
            digest=hash_of(token),
            scopes=frozenset(one for one in SCOPES if isinstance(names, list) and one in names),
            tenant=tenant,
            expires=datetime.fromtimestamp(int(claims["exp"]) + LEEWAY_S, UTC),
        )


def is_jwt(token: str) -> bool:
    """Whether ``token`` has the three parts of a signed JWT. Tokens of the file have no dots."""
    return token.count(".") == 2
