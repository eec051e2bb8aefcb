"""The Helm chart: what it renders, against Kubernetes' schemas, the settings, and the metrics."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from asr_worker.service import LOAD_S_MAX
from gateway.settings import GatewaySettings
from gateway.storage.spool import SPOOL_BYTES_MAX
from runtime.lifecycle import DRAIN_S
from runtime.metrics import PORT_OFFSETS
from tests.deploy.helm import CHART, rendered, run
from tests.promql import Query
from tests.test_docs import SETTING_NAMES
from tests.test_metrics import METRICS

KUBERNETES = ("1.27", "1.34")
LIMITS = '"resources": {"limits": {"memory": "4Gi"}}'
MODELS = (
    f'[{{"name": "zh", "model": "iic/SenseVoiceSmall", "replicas": 3, {LIMITS}}}, '
    f'{{"name": "d", "model": "demo", {LIMITS}}}]'
)
EVERYTHING = {
    "autoscaling__enabled": "true",
    "serviceMonitor__enabled": "true",
    "gateway__ingress__enabled": "true",
    "gateway__ingress__tlsSecret": '"certificate"',
    "gateway__tlsSecret": '"gateway-certificate"',
    "tokensSecret": '"tokens"',
    "image__pullSecrets": '["registry"]',
    "broker__replicas": "2",
    "worker__modelsClaim": '"models"',
    "networkPolicy__clients": '[{"namespaceSelector": {}}]',
    "models": MODELS,
}
CASES = [{}, EVERYTHING, {"networkPolicy__enabled": "false", "models": MODELS}]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] in kinds]


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        each["spec"]["template"]["spec"] for each in of_kind(objects, "Deployment", "StatefulSet")
    ]


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        c for pod in pods(objects) for c in (*pod.get("initContainers", []), *pod["containers"])
    ]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", [])}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", CASES)
def test_objects_are_valid(values: dict[str, str], version: str) -> None:
    """Custom resources, which Kubernetes itself does not know, have a test of their own."""
    known = 0
    for each in rendered(**values):
        if each["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            continue
        kubernetes_validate.validate(each, version, strict=True)
        known += 1
    assert known >= 12


def test_an_invalid_object_is_found() -> None:
    (service, *_) = of_kind(rendered(), "Service")
    service["spec"]["ports"][0]["prot"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES[0], strict=True)


def test_helm_finds_no_fault() -> None:
    done = run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", CASES)
def test_each_environment_variable_is_a_setting(values: dict[str, str]) -> None:
    for container in containers(rendered(**values)):
        unknown = {name.lower() for name in environment(container)} - SETTING_NAMES
        assert not unknown, container["name"]


def test_containers_are_confined() -> None:
    for pod in pods(rendered(**EVERYTHING)):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"]
        assert pod["automountServiceAccountToken"] is False
    for container in containers(rendered(**EVERYTHING)):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["resources"]["limits"]["memory"]


def test_each_process_gets_only_the_keys_of_its_role() -> None:
    found = {}
    for pod in pods(rendered()):
        (keys,) = (v["secret"]["items"] for v in pod["volumes"] if v["name"] == "keys")
        found[pod["containers"][0]["name"]] = sorted(item["key"] for item in keys)
    assert found == {
        "broker": [
            *("broker.public", "broker.secret", "gateway.public"),
            *("persistence.public", "worker.public"),
        ],
        "gateway": ["broker.public", "gateway.public", "gateway.secret"],
        "persistence": ["broker.public", "persistence.public", "persistence.secret"],
        "worker": ["broker.public", "worker.public", "worker.secret"],
    }


def test_a_pod_may_drain_before_it_is_killed() -> None:
    for pod in pods(rendered()):
        hooks = pod["containers"][0].get("lifecycle", {})
        sleeps_s = int(hooks.get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
        assert pod["terminationGracePeriodSeconds"] > sleeps_s + DRAIN_S + 1


def test_the_volume_of_a_gateway_has_room_for_its_spool_and_all_submitted_files() -> None:
    (gateway,) = (
        each
        for each in of_kind(rendered(), "StatefulSet")
        if each["metadata"]["name"] == "rel-gateway"
    )
    (claim,) = gateway["spec"]["volumeClaimTemplates"]
    size = re.fullmatch(r"(\d+)Gi", claim["spec"]["resources"]["requests"]["storage"])
    jobs_bytes_max = GatewaySettings.model_fields["jobs_bytes_max"].default
    assert size and int(size[1]) << 30 > SPOOL_BYTES_MAX + jobs_bytes_max


def test_each_pod_shows_its_metrics_where_they_are_scraped() -> None:
    objects = rendered(serviceMonitor__enabled="true")
    ports = {"broker": "broker", "gateway": "gateway", "persistence": "persistence"}
    ports["worker"] = "asr_worker"
    for pod in pods(objects):
        (container,) = pod["containers"]
        (port,) = (p["containerPort"] for p in container["ports"] if p["name"] == "metrics")
        first = int(environment(container)["METRICS_PORT"])
        assert port == first + PORT_OFFSETS[ports[container["name"]]]
    scraped = [
        service["metadata"]["labels"]["app.kubernetes.io/component"]
        for service in of_kind(objects, "Service")
        if any(port["name"] == "metrics" for port in service["spec"]["ports"])
    ]
    assert sorted(scraped) == ["broker", "gateway", "persistence", "worker-whisper-base"]
    (monitor,) = of_kind(objects, "ServiceMonitor")
    (relabelling,) = monitor["spec"]["endpoints"][0]["relabelings"]
    jobs = {
        re.sub(relabelling["regex"], relabelling["replacement"].replace("$1", r"\1"), component)
        for component in scraped
    }
    assert jobs == {"asr-broker", "asr-gateway", "asr-persistence", "asr-worker"}


def test_a_worker_is_ready_once_it_has_loaded_its_model() -> None:
    (worker,) = (each for each in containers(rendered()) if each["name"] == "worker")
    probe = worker["startupProbe"]
    *command, process, metric = probe["exec"]["command"]
    assert command == ["python", "-m", "runtime.healthcheck"]
    assert process in PORT_OFFSETS and metric in METRICS
    assert "readinessProbe" not in worker
    assert probe["periodSeconds"] * probe["failureThreshold"] > LOAD_S_MAX


def test_no_probe_opens_a_connection_to_the_bus() -> None:
    """The broker would count and log it as a failed handshake (docs/operations.md)."""
    for container in containers(rendered(**EVERYTHING)):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(kind, {"exec": {}})
            assert asked.keys() & {"exec", "httpGet"}, (container["name"], kind)


def test_scaling_asks_for_metrics_that_exist() -> None:
    objects = rendered(**EVERYTHING)
    scaled = of_kind(objects, "ScaledObject")
    targets = {
        (each["kind"], each["metadata"]["name"])
        for each in of_kind(objects, "Deployment", "StatefulSet")
    }
    assert len(scaled) == 3
    for each in scaled:
        target = each["spec"]["scaleTargetRef"]
        assert (target.get("kind", "Deployment"), target["name"]) in targets
        for trigger in each["spec"]["triggers"]:
            assert trigger["type"] == "prometheus"
            assert float(trigger["metadata"]["threshold"]) > 0
            assert trigger["metadata"]["ignoreNullValues"] == "false"
            for name, labels in Query(trigger["metadata"]["query"]).used:
                assert labels - {"namespace"} <= set(METRICS[name]._labelnames), name
    # KEDA sets the number of pods; the chart must not set it back at each upgrade.
    names = {each["spec"]["scaleTargetRef"]["name"] for each in scaled}
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        assert each["metadata"]["name"] not in names or "replicas" not in each["spec"]


def test_brokers_are_several_pods_behind_the_name_that_peers_resolve() -> None:
    objects = rendered(broker__replicas="3")
    (broker,) = (
        each for each in of_kind(objects, "StatefulSet") if each["metadata"]["name"] == "rel-broker"
    )
    assert broker["spec"]["replicas"] == 3
    (service,) = (
        each for each in of_kind(objects, "Service") if each["metadata"]["name"] == "rel-broker"
    )
    assert broker["spec"]["serviceName"] == "rel-broker"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    endpoints = {
        value
        for container in containers(objects)
        for name, value in environment(container).items()
        if name == "BROKER_FRONTEND"
    }
    assert endpoints == {"tcp://0.0.0.0:7101", "tcp://rel-broker:7101"}
    budgets = {each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")}
    assert "rel-broker" in budgets


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_with_a_certificate_everything_of_the_gateways_is_https(scheme: str) -> None:
    secret = '"certificate"' if scheme == "https" else '""'
    objects = rendered(gateway__tlsSecret=secret, gateway__ingress__enabled="true")
    (pod,) = (pod for pod in pods(objects) if pod["containers"][0]["name"] == "gateway")
    (container,) = pod["containers"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[kind]["httpGet"]
        assert (asked["scheme"], asked["port"]) == (scheme.upper(), scheme)
    ports = [port["name"] for port in container["ports"]]
    assert ports == [scheme, "metrics"]
    named = environment(container)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    if scheme == "https":
        assert (named["TLS_CERT_FILE"], named["TLS_KEY_FILE"]) == ("/tls/tls.crt", "/tls/tls.key")
        assert (mounts["tls"], secrets["tls"]) == ("/tls", "certificate")
    else:
        assert "TLS_CERT_FILE" not in named and "tls" not in {**mounts, **secrets}
    (service,) = (
        each for each in of_kind(objects, "Service") if each["metadata"]["name"] == "rel-gateway"
    )
    (port,) = service["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == (scheme, scheme)
    (ingress,) = of_kind(objects, "Ingress")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["port"] == {"name": scheme}
    policies = of_kind(objects, "NetworkPolicy")
    (policy,) = (each for each in policies if each["metadata"]["name"] == "rel-gateway")
    assert scheme in [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]]


def test_models_have_pods_of_their_own() -> None:
    found = {
        each["metadata"]["name"]: environment(each["spec"]["template"]["spec"]["containers"][0])
        for each in of_kind(rendered(models=MODELS), "Deployment")
    }
    assert found["rel-worker-zh"]["ASR_MODEL"] == "iic/SenseVoiceSmall"
    assert found["rel-worker-zh"]["ASR_SERVED_NAME"] == "zh"
    assert found["rel-worker-d"]["ASR_MODEL"] == "demo"


def test_only_peers_of_the_release_reach_the_bus() -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(rendered(), "NetworkPolicy")
    }
    ports = {
        rule["ports"][0]["port"]: len(rule.get("from", []))
        for rule in policies["rel-broker"]["ingress"]
    }
    assert ports == {"front": 2, "events": 1, "back": 1, "metrics": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway__replicas", "-1"),
        ("gateway__terminationGraceSeconds", "3"),
        ("systemId", '"a b"'),
        ("settings", '{"max_connections": 3}'),
        ("models", "[]"),
        ("settings", '{"TLS_CERT_FILE": "/elsewhere"}'),
        ("settings", '{"METRICS_PORT": 9800}'),
        ("settings", '{"MAX_CONNECTIONS": 5}'),
        ("gateway__tlsSecret", '"A B"'),
        ("gateway__dataSize", '"10 GB"'),
        ("gateway__maxUnavailable", '"half"'),
        ("worker__maxUnavailable", "-1"),
        ("gateway__ingress__host", '"https://asr.example.com/"'),
        ("serviceMonitor__interval", '"soon"'),
        ("autoscaling__worker__utilisation", "0.95"),
        ("unknown", "1"),
        ("gateway__replica", "1"),
        ("broker__service", "{}"),
        ("persistence__replicas", "2"),
        ("models", '[{"name": "d", "model": "demo", "replica": 1}]'),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: str) -> None:
    option = f"{name.replace('__', '.')}={value}"
    assert run("template", "rel", str(CHART), "--set-json", option).returncode != 0


def test_large_numbers_are_written_as_settings_are_read() -> None:
    numbers = {"JOBS_BYTES_MAX": 1 << 30, "ADMIT_BUSY_MAX": 0.5, "OUTBOX_RECORDS_MAX": 2_000_000}
    objects = rendered(settings=json.dumps(numbers), gateway__maxConnections="1000000")
    gateway = next(c for c in containers(objects) if c["name"] == "gateway")
    found = environment(gateway)
    assert {name: found[name] for name in numbers} == {k: str(v) for k, v in numbers.items()}
    assert found["MAX_CONNECTIONS"] == "1000000"


def test_a_share_of_the_pods_may_be_unavailable() -> None:
    (budget, *_) = of_kind(rendered(gateway__maxUnavailable='"25%"'), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == "25%"


def test_each_value_is_used() -> None:
    templates = "".join(each.read_text("utf-8") for each in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.(\w+)", templates))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert _names(values) <= used


def _names(value: Any) -> set[str]:
    """All names in ``value``, but for those of resources, which the chart passes on."""
    if isinstance(value, list):
        return {name for each in value for name in _names(each)}
    if not isinstance(value, dict):
        return set()
    inner = [_names(each) for name, each in value.items() if name != "resources"]
    return set(value).union(*inner)


def test_each_value_is_described() -> None:
    """By a comment on the line before, or before the group of short ones that it is part of."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    usual = {"resources", "nodeSelector", "tolerations", "affinity", "settings", "enabled"}
    usual |= {"requests", "limits", "min", "max", "cooldownSeconds", "terminationGraceSeconds"}
    usual |= {"type", "port", "annotations", "className", "host", "interval", "server", "name"}
    usual |= {"worker", "gateway"}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r" *(?:- )?(\w+):", line)
        if match and match[1] not in usual and line[0] == " ":
            above = lines[number - 1].strip()
            assert above.startswith("#") or above.endswith(":"), line
    assert yaml.safe_load(text)
