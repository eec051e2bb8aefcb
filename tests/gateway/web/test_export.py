from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.web.errors import answer_errors
from gateway.web.export import EXPORT_BYTES_MAX, add_export
from gateway.web.sessions import transcript_response
from gateway.web.uploads import FORM_BYTES_MAX

SEGMENT: dict[str, Any] = {
    "text": "one two",
    "start_ms": 100,
    "end_ms": 2000,
    "speaker": 2,
    "tokens": [
        {"text": "one", "start_ms": 100, "end_ms": 900},
        {"text": "two", "start_ms": 1500, "end_ms": 2000},
    ],
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    answer_errors(app)
    add_export(app)
    return TestClient(app)


@pytest.mark.parametrize("wanted", ["text", "srt", "vtt"])
def test_texts_get_the_form_of_a_stored_session(client: TestClient, wanted: Any) -> None:
    edited = {"text": "three <four>", "start_ms": 2500, "end_ms": 3000}
    answer = client.post(f"/api/v1/export?format={wanted}", json={"segments": [SEGMENT, edited]})
    stored = [SEGMENT, {**edited, "speaker": None, "tokens": []}]
    expected = transcript_response({"segments": stored}, wanted)
    assert answer.content == expected.body
    assert answer.headers["Content-Type"] == expected.headers["Content-Type"]


def test_json_has_the_defaults(client: TestClient) -> None:
    bare = {"text": "a", "start_ms": 0, "end_ms": 1}
    answer = client.post("/api/v1/export?format=json", json={"segments": [bare]})
    assert answer.json() == {"segments": [{**bare, "speaker": None, "tokens": []}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"segments":[{"text":"a"}]}',
        json.dumps({"segments": [{**SEGMENT, "start_ms": -1}]}).encode(),
        json.dumps({"segments": [{**SEGMENT, "speaker": 0}]}).encode(),
    ],
)
def test_anything_else_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/v1/export?format=srt", content=body)
    assert answer.status_code == 422


def test_the_message_names_the_field(client: TestClient) -> None:
    for body, name in ((b"[]", "body"), (b'{"segments": [{"text": 1}]}', "segments.0.text")):
        answer = client.post("/api/v1/export?format=srt", content=body)
        assert answer.json()["message"].startswith(f"{name}: Input should be")


def test_unknown_fields_and_parameters_are_warned_of(client: TestClient) -> None:
    token = {**SEGMENT["tokens"][0], "conf": 1}
    body = {"segments": [{**SEGMENT, "speeker": 1, "tokens": [token] * 2}] * 2, "titel": "a"}
    for wanted in ("json", "srt"):
        plain = client.post(f"/api/v1/export?format={wanted}", json={"segments": [SEGMENT]})
        assert "X-Warnings" not in plain.headers
        answer = client.post(f"/api/v1/export?format={wanted}&fps=25", json=body)
        warnings = json.loads(answer.headers["X-Warnings"])
        assert [each["code"] for each in warnings] == ["unknown_parameter"] + ["field_ignored"] * 3
        assert [each["message"].partition(":")[0] for each in warnings[1:]] == [
            *("titel", "segments.speeker", "segments.tokens.conf")
        ]


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    body = b" " * (EXPORT_BYTES_MAX + FORM_BYTES_MAX + 1)
    answer = client.post("/api/v1/export?format=srt", content=body)
    message = f"the file may have at most {EXPORT_BYTES_MAX} bytes"
    assert answer.status_code == 413
    assert answer.json() == {"code": "file_too_large", "message": message, "error": message}


def test_the_description_has_the_request(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/api/v1/export"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    segment = schema["properties"]["segments"]["items"]
    assert set(segment["properties"]) == set(SEGMENT)
    assert "$ref" not in json.dumps(schema)
