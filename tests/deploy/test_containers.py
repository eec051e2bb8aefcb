"""Dockerfile, compose.yaml and systemd units against the code."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from asr_worker.recognizer import funasr_repairs
from runtime.lifecycle import DRAIN_S
from runtime.metrics import PORT_OFFSETS
from tests.test_docs import SETTING_NAMES
from tests.test_tidy import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
PROCESSES = ("broker", "persistence", "gateway", "worker")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def module_of(command: list[str]) -> str:
    """Of ``python -m MODULE``, which must exist."""
    assert command[:2] == ["python", "-m"]
    importlib.import_module(f"{command[2]}.__main__" if "." not in command[2] else command[2])
    return command[2]


def test_each_command_is_a_process() -> None:
    commands = [SERVICES[name].get("command", ["python", "-m", "asr_worker"]) for name in PROCESSES]
    assert [module_of(command) for command in commands] == [
        *("broker", "persistence", "gateway", "asr_worker")
    ]
    for command in re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE):
        module_of(yaml.safe_load(command))


def test_each_environment_variable_is_a_setting() -> None:
    for name in PROCESSES:
        unknown = {each.lower() for each in SERVICES[name]["environment"]} - SETTING_NAMES
        assert not unknown, name
    text = (DEPLOY / "systemd" / "asr.env").read_text(encoding="utf-8")
    assert {n.lower() for n in re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)} <= SETTING_NAMES


def test_the_bus_has_keys_and_peers_go_to_the_broker() -> None:
    bound, connected = (
        {k: v for k, v in SERVICES[name]["environment"].items() if k.startswith("BROKER_")}
        for name in ("broker", "gateway")
    )
    ports = {name: url.rpartition(":")[2] for name, url in bound.items()}
    assert connected == {name: f"tcp://broker:{port}" for name, port in ports.items()}
    assert all(SERVICES[name]["environment"]["BUS_KEYS_DIR"] == "/keys" for name in PROCESSES)


def test_containers_are_confined_and_may_drain() -> None:
    for name in (*PROCESSES, "keys", "model"):
        service = SERVICES[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert int(service["stop_grace_period"].rstrip("s")) > DRAIN_S + 1
    for image in DOCKERFILE.split("\nFROM application AS ")[1:]:
        assert re.findall(r"^USER (\S+)$", image, re.MULTILINE) == ["10001:0"]


def test_what_the_processes_import_is_compiled_in_the_image(tmp_path: Path) -> None:
    compiled = re.findall(
        r'env -u PYTHONDONTWRITEBYTECODE python -c "(.+?)"', DOCKERFILE, re.DOTALL
    )
    worker, server = (each.replace("\\\n", "") for each in compiled)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", server], env=environment, cwd=ROOT, check=True)
    for process in ("broker", "gateway", "persistence"):
        assert list(tmp_path.glob(f"**/{process}/__main__.*.pyc"))
    # It takes long, so only its names are looked up.
    for module in re.findall(r"asr_worker\.[\w.]+(?=[,;])", worker):
        importlib.import_module(module)
    assert callable(funasr_repairs.import_all) and "funasr_repairs.import_all()" in worker


def test_each_process_has_a_health_check() -> None:
    for name in PROCESSES:
        *command, process = SERVICES[name]["healthcheck"]["test"]
        assert command == ["CMD", "python", "-m", "runtime.healthcheck"]
        assert process in PORT_OFFSETS and process.endswith(name)
    assert "METRICS_PORT" in DOCKERFILE


def test_the_image_has_each_package_that_its_processes_import() -> None:
    """.dockerignore leaves out the others."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert {"asr_worker", "broker", "gateway", "persistence", "runtime", "wire"} <= kept
    for path in kept:
        assert (ROOT / path).exists(), path


def test_systemd_accepts_the_units() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, UNITS)], capture_output=True, text=True
    )
    unexpected = [
        line
        for line in done.stderr.splitlines()
        if "/opt/asr/.venv/bin/python is not executable" not in line
    ]
    assert not [line for line in unexpected if "asr" in line], unexpected


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_confined_and_may_drain(unit: Any) -> None:
    text = unit.read_text(encoding="utf-8")
    module = re.search(r"^ExecStart=\S+ -m (\w+)$", text, re.MULTILINE)
    assert module and module_of(["python", "-m", module[1]])
    timeout = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert timeout and int(timeout[1]) > DRAIN_S + 1
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
        assert f"\n{line}\n" in text
