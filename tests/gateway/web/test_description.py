from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.auth_tokens import AuthTokens
from gateway.web.description import TAGS
from gateway.web.schemas import ProblemAnswer


def schema(tokens: object = None) -> dict[str, Any]:
    app = create_app(cast(Server, SimpleNamespace()), {}, cast(AuthTokens, tokens))
    return app.openapi()


def operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in schema()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_a_known_tag_and_a_summary() -> None:
    tags = {tag["name"] for tag in TAGS}
    for name, operation in operations():
        assert set(operation["tags"]) <= tags and operation["tags"], name
        assert operation["summary"], name


def test_every_operation_describes_its_errors_in_the_form_that_they_have() -> None:
    for name, operation in operations():
        problems = {
            status: answer["content"]["application/json"]["schema"]
            for status, answer in operation["responses"].items()
            if status in ("401", "404", "422", "503") and "/v1/" not in name.replace("/api/v1/", "")
        }
        assert "401" in operation["responses"], name
        for status, body in problems.items():
            if (name, status) != ("GET /api/v1/health", "503"):
                assert body["$ref"].endswith("/ProblemAnswer"), (name, status)
    assert "HTTPValidationError" not in schema()["components"]["schemas"]


def test_times_have_their_format_and_lists_an_example() -> None:
    schemas = schema()["components"]["schemas"]
    record = schemas["HistoryRecord"]["properties"]
    assert record["created_at"]["format"] == "date-time"
    assert {"type": "string", "format": "date-time"} in record["completed_at"]["anyOf"]
    (problem,) = schemas["ProblemAnswer"]["examples"]
    ProblemAnswer.model_validate(problem)
    parameters = schema()["paths"]["/api/v1/history"]["get"]["parameters"]
    (since,) = [each for each in parameters if each["name"] == "since"]
    assert "date-time" in str(since["schema"])


@pytest.mark.parametrize(("tokens", "first"), [(None, {}), (SimpleNamespace(), {"token": []})])
def test_access_is_described_as_it_is(tokens: object, first: dict[str, list[str]]) -> None:
    described = schema(tokens)
    assert described["security"][0] == first
    assert described["paths"]["/api/v1/health"]["get"]["security"][0] == {}
