"""Every log event in the code is in docs/log_events.md, with its level and process."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_docs import named, table
from tests.test_tidy import ROOT, SOURCES

DOCUMENT = (ROOT / "docs" / "log_events.md").read_text(encoding="utf-8")
PROCESSES = {
    "broker": "broker",
    "gateway": "gateway",
    "asr_worker": "asr_worker",
    "persistence": "persistence",
    "runtime": "every process",
    "wire": "every process",
    "tools/embedded": "embedded",
}
"""Folders, and whose events they log."""
SHARED = {
    "database_link_plain": "every process",
    "redis_ready": "every process",
    "redis_unavailable": "every process",
    "store_available": "gateway",
    "store_unavailable": "gateway",
}
"""Events of code that other processes use, too."""
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}
NAMED_ELSEWHERE = {
    "gateway/brokers/client.py": {
        ("broker_found", "info"),
        ("broker_restarted", "info"),
        ("broker_silence_ended", "info"),
    },
    "gateway/__main__.py": {("drain_failed", "error"), ("connection_not_closed", "error")},
    "asr_worker/service.py": set(),
    "persistence/service.py": set(),
}
"""Files that pass an event in a variable, and its possible names and levels, except for those in
``EXPLAINED``."""
EXPLAINED = {"wrong_endpoint", "system_refused", "protocol_version_refused"}
"""Names from ``wire.versions.explain``. They are logged as errors."""


def calls(path: Path) -> Iterator[tuple[ast.expr, list[str]]]:
    """The first argument and the possible methods of each call of a logger."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            called = node.func
            methods = [called.body, called.orelse] if isinstance(called, ast.IfExp) else [called]
            of_loggers = [
                each.attr
                for each in methods
                if isinstance(each, ast.Attribute)
                and each.attr in LEVELS
                and "log" in ast.unparse(each.value).lower()
            ]
            if of_loggers:
                yield node.args[0], of_loggers


def process_of(file: str, event: str) -> str:
    (owner,) = [PROCESSES[folder] for folder in PROCESSES if file.startswith(f"{folder}/")]
    return SHARED.get(event, owner)


def events_of_the_code() -> set[tuple[str, str, str]]:
    found = {(event, "error", "every process") for event in EXPLAINED}
    for path in SOURCES:
        file = str(path.relative_to(ROOT))
        if not file.startswith(tuple(f"{folder}/" for folder in PROCESSES)):
            continue
        for argument, methods in calls(path):
            if isinstance(argument, ast.IfExp):
                names = [argument.body, argument.orelse]
            else:
                names = [argument] * len(methods)
            for name, method in zip(names, methods, strict=True):
                if isinstance(name, ast.Constant):
                    event = str(name.value)
                    found.add((event, LEVELS[method], process_of(file, event)))
                else:
                    named_here = NAMED_ELSEWHERE[file]
                    found |= {(*each, process_of(file, each[0])) for each in named_here}
    return found


def test_the_document_has_every_event_of_the_code_and_no_other() -> None:
    rows = table(DOCUMENT, "log_events")
    written = [(named(event), level, process) for event, level, process, _ in rows]
    assert len(written) == len(set(written))
    assert set(written) == events_of_the_code()
    assert all(meaning for *_, meaning in rows)


def test_events_named_elsewhere_are_in_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    names = {event for events in NAMED_ELSEWHERE.values() for event, _ in events} | EXPLAINED
    assert [name for name in sorted(names) if f'"{name}"' not in code] == []
