from __future__ import annotations

import pytest

from runtime.redis_address import RedisAddress, parse

CODES = (("@", "%40"), ("#", "%23"), ("/", "%2F"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://user:p%40ss@cache.example:6380/2?ssl_ca_certs=/etc/ca.pem",
        "redis://[::1]:6379/0",
        "redis://ann:pa@ss:=&%@[::1]:6379/0",
        "redis://host/0?password=pa@ss",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_one_server_is_for_the_library(url: str) -> None:
    found = parse(url)
    assert found == RedisAddress("server", url, files=found.files)
    assert found.files == ((("ssl_ca_certs", "/etc/ca.pem"),) if "ssl_ca_certs" in url else ())


def test_sentinels() -> None:
    found = parse(
        "rediss+sentinel://user:pw@s1,[2001:db8::2]:26380/asr/3"
        "?sentinel_password=other&ssl_ca_certs=/etc/ca.pem"
    )
    assert found.form == "sentinel" and found.service == "asr"
    assert found.hosts == (("s1", 26_379), ("2001:db8::2", 26_380))
    assert found.url == "rediss://user:pw@s1/3?ssl_ca_certs=%2Fetc%2Fca.pem"
    assert found.sentinel_login == (("password", "other"),)
    for char, code in CODES:
        assert parse(f"redis+sentinel://s1:26379/my{code}asr/0").service == f"my{char}asr"
    assert parse("redis+sentinel://s1:26379/asr").url == "redis://s1:26379/0"


def test_a_cluster() -> None:
    found = parse("redis+cluster://:pw@n1:7000,n2:7001")
    assert (found.form, found.hosts) == ("cluster", (("n1", 7000), ("n2", 7001)))
    assert found.url == "redis://:pw@n1:7000"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "redis\\+sentinel://"),
        ("http://host", "redis\\+sentinel://"),
        ("redis://", "must be"),
        ("redis://a,b", "several hosts"),
        ("redis://a:0", "host and port"),
        ("redis://a:pw", "host and port"),
        ("redis://:s3cret@a..b", "host's name"),
        ("redis+sentinel://s1:26379", "name the service"),
        ("redis+sentinel://s1:26379/0", "name the service"),
        ("redis+sentinel://s1:26379/0/asr", "name the service"),
        ("redis+cluster://n1/2", "database 0"),
        ("redis+cluster://n1?db=2", "database 0"),
        ("redis://a?sentinel_password=s3cret", "unknown options sentinel_password"),
        ("redis://a?tls=yes", "unknown options tls"),
        ("unix:///run/redis.sock?tls=yes", "unknown options tls"),
        ("redis://a?ssl_ca_certs=/etc/ca.pem", "only with rediss"),
        *((f"redis://ann:s3cret{char}s3cret@a:1/0", "%23") for char in "#/?[]"),
        ("redis://ann:12#s3cret@a", "%23"),
        ("redis://a/0?password=12#s3cret", "%23"),
        ("unix:///run/redis#1.sock", "%23"),
        *((f"redis+sentinel://s1:26379/my{char}asr/0", code) for char, code in CODES),
        ("redis://a/one", "valid database"),
        ("redis://a/-1", "valid database"),
        ("redis://a?db=one", "valid value for db"),
        ("redis://a?protocol=9", "valid value for protocol"),
        ("redis://a?socket_timeout=5s", "valid value for socket_timeout"),
        ("rediss://a?ssl_cert_reqs=maybe&password=s3cret", "valid value for ssl_cert_reqs"),
    ],
)
def test_other_forms_are_refused_without_quoting_them(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse(url)
    assert "s3cret" not in str(refused.value)
