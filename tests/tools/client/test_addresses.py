"""Addresses of a server, as people write them."""

from __future__ import annotations

import pytest

from asr_client.addresses import http_url, websocket_url


@pytest.mark.parametrize(
    "address, expected",
    [
        ("host:8380", "ws://host:8380/ws/asr"),
        ("host", "ws://host:8080/ws/asr"),
        ("host/speech/", "ws://host:8080/speech/ws/asr"),
        ("127.0.0.1:8380/", "ws://127.0.0.1:8380/ws/asr"),
        ("[::1]:8380", "ws://[::1]:8380/ws/asr"),
        ("[::1]", "ws://[::1]:8080/ws/asr"),
        ("ws://host:8380", "ws://host:8380/ws/asr"),
        ("ws://host:8380/", "ws://host:8380/ws/asr"),
        (" ws://host:8380/ws/asr\n", "ws://host:8380/ws/asr"),
        ("ws://host/renamed", "ws://host/renamed"),
        ("ws://host/speech/", "ws://host/speech/ws/asr"),
        ("http://host:8380/", "ws://host:8380/ws/asr"),
        ("http://host:8380/ws/asr", "ws://host:8380/ws/asr"),
        ("https://host", "wss://host/ws/asr"),
        ("https://host/speech", "wss://host/speech/ws/asr"),
        ("wss://host/ws/asr?model=zh", "wss://host/ws/asr?model=zh"),
        ("ws://any:secret@host:1/", "ws://any:secret@host:1/ws/asr"),
    ],
)
def test_the_path_is_added_where_it_is_missing(address: str, expected: str) -> None:
    assert websocket_url(address) == expected
    assert websocket_url(expected) == expected


@pytest.mark.parametrize(
    "address, expected",
    [
        ("host:8380", "http://host:8380"),
        ("ws://host:8380/ws/asr", "http://host:8380"),
        ("wss://host/speech/ws/asr", "https://host/speech"),
        ("https://host/speech/", "https://host/speech"),
        ("ws://host/renamed", "http://host"),
    ],
)
def test_rest_has_the_same_server(address: str, expected: str) -> None:
    assert http_url(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://host",
        "8080",
        "ws://",
        "http:///ws/asr",
        "host:port",
        "host:",
        "host:99999",
        "a b",
        "[::1",
        "a..b",
    ],
)
def test_anything_else_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(ValueError, match="not the address of a server") as caught:
        websocket_url(address)
    assert "\n" not in str(caught.value)
