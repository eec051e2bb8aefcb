"""deploy/ against the code: scraped ports, alert rules, dashboards, and the help for alerts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from runtime.metrics import PORT_OFFSETS
from tests.promql import PromqlError, Query
from tests.test_metrics import METRICS
from tests.test_tidy import ROOT
from tools.ops.scrape_targets import job_of, scrape_targets

DEPLOY = ROOT / "deploy"
FOREIGN = {
    "up": {"job", "instance"},
    "process_start_time_seconds": {"job", "instance"},
    "process_open_fds": {"job", "instance"},
    "process_max_fds": {"job", "instance"},
    "process_cpu_seconds_total": {"job", "instance"},
    "process_resident_memory_bytes": {"job", "instance"},
}
"""Metrics that are not ours: of Prometheus and of its client, with the labels of the scraper."""


def loaded(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in loaded("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every expression in deploy/, by its location."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


QUERIES = queries()


@pytest.mark.parametrize("place", QUERIES)
def test_queries_name_metrics_and_labels_that_exist(place: str) -> None:
    expression = QUERIES[place]
    used = Query(expression).used
    assert used
    for name, labels in used:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if name in FOREIGN:
            assert labels <= FOREIGN[name]
            continue
        metric = METRICS.get(name) or METRICS[family]
        extra = {"le"} if name.endswith("_bucket") else set()
        assert labels <= {*metric._labelnames, "job", "instance", *extra}


@pytest.mark.parametrize(
    "expression",
    ["deriv(up[5m])", "rate(up)", "sum(up", "up > ", "up{job=}} 1", "avg(up) by (x) y", "up ?? 1"],
)
def test_the_check_itself_sees_mistakes(expression: str) -> None:
    with pytest.raises(PromqlError):
        Query(expression)


def test_rules_are_complete_and_have_help() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    helped = re.findall(r"^### (Asr\w+)$", page, re.MULTILINE)
    assert helped == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/reliability.md#{rule['alert'].lower()}"


def test_names_in_the_help_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(asr_\w+)`", page)) <= METRICS.keys()


def test_the_scraper_asks_where_the_processes_are() -> None:
    """With METRICS_PORT=9700, as the documents have it, and one process of each kind."""
    config = loaded("prometheus/prometheus.yml")
    assert config["rule_files"] == ["alerts.yml"]
    (scraping,) = config["scrape_configs"]
    ((file,),) = (discovery["files"] for discovery in scraping["file_sd_configs"])
    targets = json.loads((DEPLOY / "prometheus" / file).read_text(encoding="utf-8"))
    assert targets == scrape_targets(9_700, {})
    assert {group["labels"]["job"] for group in targets} == set(map(job_of, PORT_OFFSETS))


def test_queries_name_jobs_that_are_scraped() -> None:
    named = {
        pattern
        for expression in QUERIES.values()
        for pattern in re.findall(r'job=~?"([^"]+)"', expression)
    }
    jobs = set(map(job_of, PORT_OFFSETS))
    assert named
    for pattern in named:
        assert any(re.fullmatch(pattern, job) for job in jobs), pattern


def test_the_dashboard_fits_grafana() -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    assert board["uid"] and board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    (variable,) = board["templating"]["list"]
    for panel in panels():
        assert panel["title"] and panel["description"]
        assert panel["datasource"]["uid"] == f"${{{variable['name']}}}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    (source,) = loaded("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = loaded("grafana/provisioning/dashboards/asr.yml")["providers"]
    assert provider["options"]["path"]
