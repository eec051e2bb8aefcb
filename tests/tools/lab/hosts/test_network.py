"""Two hosts, in a process that has a network of its own, and what their links can do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.lab.harness.process import ROOT
from tools.lab.hosts import network

PROGRAM = '''
import io, socket, subprocess, sys, time
from tools.lab.hosts.network import Network

WAIT_S, DELAY_S, PORT = 20.0, 0.1, 7000
SERVER = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
while True:
    peer, _ = server.accept()
    peer.sendall(peer.recv(100))
"""
capture = io.BytesIO()
network = Network()
plain = network.add("plain")
far, cable = network.add_with_cable("far", capture)

def ask(host, text, timeout_s):
    began_s = time.monotonic()
    with socket.create_connection((host.address, PORT), timeout=timeout_s) as peer:
        peer.sendall(text)
        assert peer.recv(100) == text
    return time.monotonic() - began_s

def answers(host):
    try:
        ask(host, b"hello", 1.0)
    except OSError:
        return False
    return True

def until(wanted, host):
    deadline_s = time.monotonic() + WAIT_S
    while answers(host) != wanted:
        assert time.monotonic() < deadline_s, (wanted, host.name)
        time.sleep(0.05)

servers = [subprocess.Popen([*h.prefix, sys.executable, "-c", SERVER]) for h in (plain, far)]
try:
    for host in (plain, far):
        until(True, host)
        host.cut()
        until(False, host)
        host.heal()
        until(True, host)
    plain.narrow(1.0)
    until(True, plain)
    plain.widen()
    assert min(plain.traffic()) > 0
    ask(far, b"seen by nobody else", WAIT_S)
    assert b"seen by nobody else" in capture.getvalue()
    cable.delay_s = DELAY_S
    assert ask(far, b"later", WAIT_S) > 4 * DELAY_S
    cable.loss = 1.0
    until(False, far)
    assert cable.lost
finally:
    for server in servers:
        server.kill()
        server.wait()
    cable.close()
'''


@pytest.fixture(autouse=True)
def possible() -> None:
    if reason := network.why_impossible():
        pytest.skip(f"no network namespaces: {reason}")


def test_links_are_cut_narrowed_delayed_and_captured() -> None:
    command = [*network.OWN_NETWORK, sys.executable, "-c", PROGRAM]
    subprocess.run(command, cwd=ROOT, check=True, timeout=200)


def test_nothing_is_left() -> None:
    shown = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    assert network.BRIDGE not in shown.stdout.split()


def test_the_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TAP_DEVICE", ROOT / "no such device")
    assert "no such device" in network.why_impossible()
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert "root" in network.why_impossible()
