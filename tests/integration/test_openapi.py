"""The gateway does what its OpenAPI description says, whatever is sent (schemathesis)."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tools.lab.harness.stack import Stack

EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
WITH_INPUT = ("history", "session_id", "transcriptions", "export", "submit", "task_id")
OPERATIONS = [
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/admission"),
    ("GET", "/api/v1/history"),
    ("GET", "/api/v1/session/{session_id}"),
    ("DELETE", "/api/v1/session/{session_id}"),
    ("POST", "/api/v1/export"),
    ("GET", "/api/v1/asr/history"),
    ("GET", "/api/v1/asr/queue/status"),
    ("GET", "/api/v1/asr/result/{task_id}"),
    ("POST", "/api/v1/asr/retry/{task_id}"),
    ("POST", "/api/v1/asr/submit"),
    ("DELETE", "/api/v1/asr/task/{task_id}"),
    ("GET", "/api/v1/stats"),
    ("GET", "/api/v1/system"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
]


@pytest.fixture(scope="module")
def schema(stack: Stack) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{stack.http_url()}/openapi.json")


def test_every_operation_is_tested(stack: Stack) -> None:
    paths = stack.get("/openapi.json").body["paths"]
    described = {(method.upper(), path) for path in paths for method in paths[path]}
    assert described == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(schema: schemathesis.BaseSchema, method: str, path: str) -> None:
    """Status, content type and body, for valid and for invalid requests."""
    operation = schema[path][method]
    modes = [schemathesis.GenerationMode.POSITIVE]
    if any(kind in path for kind in WITH_INPUT):
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    for mode in modes:

        @hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        check()
