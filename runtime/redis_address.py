"""Core: the forms of ``REDIS_URL``: one server, Sentinel, or a cluster."""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode

from msgspec import Struct

from runtime.endpoints import check_name

Form = Literal["server", "sentinel", "cluster"]
FORMS: Final = (
    "redis://HOST:PORT/DB, unix://PATH, redis+sentinel://HOST:PORT,…/SERVICE/DB or "
    "redis+cluster://HOST:PORT,…; rediss instead of redis for TLS"
)
SCHEMES: Final[dict[str, tuple[str, Form]]] = {
    "redis": ("redis", "server"),
    "rediss": ("rediss", "server"),
    "unix": ("unix", "server"),
    "redis+sentinel": ("redis", "sentinel"),
    "rediss+sentinel": ("rediss", "sentinel"),
    "redis+cluster": ("redis", "cluster"),
    "rediss+cluster": ("rediss", "cluster"),
}
"""The scheme of each server, and the form."""
PORTS: Final[dict[Form, int]] = {"server": 6379, "sentinel": 26_379, "cluster": 6379}
SENTINEL_PREFIX: Final = "sentinel_"
SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
_ANY, _INTEGER, _SECONDS, _BOOLEAN = (
    ".+",
    r"\d{1,6}",
    r"\d{1,6}(\.\d+)?",
    "(?i:true|false|yes|no|1|0)",
)
OPTIONS: Final = {
    **dict.fromkeys(("username", "password", "client_name"), _ANY),
    **{"db": _INTEGER, "protocol": "[23]", "health_check_interval": _INTEGER},
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _SECONDS),
    "socket_keepalive": _BOOLEAN,
}
TLS_OPTIONS: Final = {
    **dict.fromkeys(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path"), _ANY),
    **{"ssl_password": _ANY, "ssl_cert_reqs": "none|optional|required"},
    "ssl_check_hostname": _BOOLEAN,
}
"""Query parameters, by redis-py's names, and the forms of their values."""
FILE_OPTIONS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_URL = re.compile(
    r"[^:]+://(?P<netloc>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(#(?P<fragment>.*))?"
)
"""``urlsplit`` refuses an IPv6 address that is not the first of several hosts."""
_CUT_LOGIN = re.compile(r"redi[^:]+://[^/?#]*(?:[]/#[][^?]*|\?[^=]*)@")
"""The login ends at the first of these characters. A value of an option may contain ``@``."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+))(?::(\d{1,5}))?")
_IN_PATH = re.compile(r"/(?!\d+/?$)([^/]+)(?:/(\d+))?/?")


class RedisAddress(Struct, frozen=True):
    form: Form
    url: str
    """URL of the first server, for ``redis.from_url``. With Sentinel, the port is a sentinel's."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of the cluster's nodes or of the sentinels."""
    service: str = ""
    """The name that the sentinels have for the servers."""
    files: tuple[tuple[str, str], ...] = ()
    """The options that name a file or a directory, and their values."""
    sentinel_login: tuple[tuple[str, str], ...] = ()
    """``username`` and ``password`` for the sentinels, which may differ from the servers'."""


def parse(url: str) -> RedisAddress:
    """Parse ``REDIS_URL``.

    Raises:
        ValueError: if it has another form. The message does not quote it, for it may hold a
            password.
    """
    scheme, form = SCHEMES.get(url.partition("://")[0], ("", "server"))
    found = _URL.fullmatch(url)
    if not scheme or found is None or url.endswith("://"):
        raise ValueError(f"must be {FORMS}")
    if _CUT_LOGIN.match(url):
        service = "in a service's name, @ is written %40; " if form == "sentinel" else ""
        raise ValueError(f"{service}in a password, # is written %23, / %2F, ? %3F, [ %5B and ] %5D")
    if found["fragment"] is not None:  # redis-py ignores it, also when it is half a password.
        raise ValueError("# is written %23")
    netloc, path, options = found["netloc"], found["path"], found["query"] or ""
    query = dict(parse_qsl(options, keep_blank_values=True))
    known = {
        **OPTIONS,
        **(TLS_OPTIONS if scheme == "rediss" else {}),
        **(dict.fromkeys(SENTINEL_OPTIONS, _ANY) if form == "sentinel" else {}),
    }
    if unknown := sorted(query.keys() - known.keys()):
        if TLS_OPTIONS.keys() & unknown:
            raise ValueError(f"{', '.join(unknown)}: only with rediss instead of redis")
        raise ValueError(f"unknown options {', '.join(unknown)}; the forms are {FORMS}")
    if wrong := sorted(name for name in query if not re.fullmatch(known[name], query[name])):
        raise ValueError(f"has no valid value for {', '.join(wrong)}")
    files = tuple((name, query[name]) for name in FILE_OPTIONS if name in query)
    if scheme == "unix":
        return RedisAddress("server", url)
    login, at, names = netloc.rpartition("@")
    hosts = tuple(_host(name, PORTS[form]) for name in names.split(","))
    service = ""
    if form == "server":
        if len(hosts) > 1:
            raise ValueError("has several hosts: use redis+sentinel:// or redis+cluster://")
        if not re.fullmatch(r"(/\d*)?", path):
            raise ValueError("has no valid database: a number follows the host, as in /0")
        return RedisAddress(form, url, files=files)
    if form == "sentinel":
        in_path = _IN_PATH.fullmatch(path)
        if in_path is None:
            raise ValueError(
                "must name the service: redis+sentinel://HOST:PORT,…/SERVICE/DB; in its name, / is "
                "written %2F"
            )
        service, path = unquote(in_path[1]), f"/{in_path[2] or 0}"
    elif path.strip("/") not in ("", "0") or query.get("db", "0") != "0":
        raise ValueError("a cluster has database 0 only")
    sentinel_login = tuple(
        (name.removeprefix(SENTINEL_PREFIX), query.pop(name))
        for name in sorted(SENTINEL_OPTIONS & query.keys())
    )
    first = names.split(",")[0]
    options = f"?{urlencode(query)}" if query else ""
    server = f"{scheme}://{login}{at}{first}{path}{options}"
    return RedisAddress(form, server, hosts, service, files, sentinel_login)


def _host(name: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(name)
    if found is None or int(found[3] or port) not in range(1, 65_536):
        raise ValueError(f"has no valid host and port; the forms are {FORMS}")
    host = found[1] or found[2]
    check_name(host)
    return host, int(found[3] or port)
