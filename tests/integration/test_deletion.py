"""A deletion reaches a session that runs at another gateway."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.test_tenants import exchange
from tools.lab.harness.stack import Stack, wait_until


def test_a_session_of_another_gateway_is_ended_and_deleted(stack: Stack) -> None:
    session_id = "deleted-elsewhere"
    path = f"/api/v1/session/{session_id}"
    with stack.start("gateway12") as other:
        stack.wait_ready("gateway12")
        with connect(stack.url(), proxy=None) as client:
            exchange(client, {"action": "start", "session_id": session_id})
            wait_until(lambda: stack.get(path, "gateway12").status == 200, "its start is stored")
            assert stack.get(path, "gateway12", "DELETE").status in (200, 202)
            answer = json.loads(client.recv(timeout=60))
            assert (answer["type"], answer["code"]) == ("error", "deleted")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=60)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        gateways = ("gateway", "gateway12")
        wait_until(lambda: all(stack.get(path, at).status == 404 for at in gateways), "it is gone")
    assert other.wait() == 0
    del stack.processes["gateway12"]
