"""REST requests to the server, with the standard library."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from asr_client.addresses import http_url
from asr_client.client import LOOPBACK, authorization, reason_of
from asr_client.exceptions import SessionError, UnreachableError, message_of, refusal

ANSWER_S_MAX: Final = 10.0
"""Limit on the silence of the server."""


class Rest:
    """The REST interface of the server at ``address``, in any form that ``http_url`` takes."""

    def __init__(self, address: str, token: str | None) -> None:
        self._root = http_url(address)
        self._headers = authorization(token)
        host = urlsplit(self._root).hostname
        handlers = [urllib.request.ProxyHandler({})] if host in LOOPBACK else []
        self._opener = urllib.request.build_opener(_Redirects(), *handlers)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """Return the body of the answer. Values of ``query`` that are ``None`` are left out.

        Raises:
            RefusedError: If the server answers with an error.
            UnreachableError: If it does not answer.
        """
        return self._answer("GET", path, query)

    def get_json(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object of the answer.

        Raises:
            SessionError: If the answer is no JSON object, or as ``get``.
        """
        try:
            found = json.loads(self.get(path, query))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SessionError(f"{self._root}{path} is not this server's REST interface")
        return found

    def delete(self, path: str) -> bytes:
        """Return the body of the answer; raise as ``get``."""
        return self._answer("DELETE", path, None)

    def _answer(self, method: str, path: str, query: Mapping[str, Any] | None) -> bytes:
        values = {name: value for name, value in (query or {}).items() if value is not None}
        url = self._root + path + (f"?{urlencode(values, doseq=True)}" if values else "")
        request = urllib.request.Request(url, headers=self._headers, method=method)
        try:
            with self._opener.open(request, timeout=ANSWER_S_MAX) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                message = message_of(error.read(), error.reason)
            raise refusal(error.code, message, error.headers.get("Retry-After")) from error
        except urllib.error.URLError as error:
            reason = error.reason if isinstance(error.reason, Exception) else error
            # A server whose certificate is not trusted has been reached.
            is_ours = isinstance(reason, ssl.SSLCertVerificationError)
            failure = SessionError if is_ours else UnreachableError
            raise failure(f"cannot connect to {self._root}: {reason_of(reason)}") from error
        except http.client.BadStatusLine as error:
            message = f"{self._root}: what listens on this port is no HTTP server, or needs TLS"
            raise UnreachableError(message) from error
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{self._root} does not answer: {error}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, to another host or port without the token, as ``websockets`` does."""

    def redirect_request(
        self, req: urllib.request.Request, *response: Any
    ) -> urllib.request.Request | None:
        redirected = super().redirect_request(req, *response)
        if redirected is not None and _origin(redirected) != _origin(req):
            redirected.remove_header("Authorization")
        return redirected


def _origin(request: urllib.request.Request) -> tuple[str, str]:
    return request.type, request.host


def session_path(session_id: str) -> str:
    return f"/api/v1/session/{quote(session_id, safe='')}"
