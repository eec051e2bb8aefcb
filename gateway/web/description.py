"""The parts of the OpenAPI description that FastAPI does not derive from the routes."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from gateway.web.auth import LIMITED

SESSIONS: Final = "Sessions"
FILES: Final = "Files for later"
SYSTEM: Final = "System"
OPENAI: Final = "OpenAI"
TAGS: Final = [
    {"name": SESSIONS, "description": "What was recognised: history, search, transcripts."},
    {"name": FILES, "description": "As in the system that this one replaces: submit, then ask."},
    {"name": SYSTEM, "description": "State and figures of the system."},
    {"name": OPENAI, "description": "Files and models, compatible with OpenAI's API."},
]
_PROBLEM = {"$ref": "#/components/schemas/ProblemAnswer"}
_OPENAI_PROBLEM = {"type": "object", "required": ["error"]}


def describe(app: FastAPI, *, guarded: bool) -> None:
    """Add access control and the common errors. Call it after all routes are added. ``guarded``:
    requests need a token."""
    schema: dict[str, Any] = app.openapi()
    components = schema["components"]
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "password": {"type": "http", "scheme": "basic", "description": "The token as password."},
    }
    either: list[dict[str, list[str]]] = [{"token": []}, {"password": []}]
    schema["security"] = either if guarded else [{}, *either]
    for path, operations in schema["paths"].items():
        error = _OPENAI_PROBLEM if path.startswith("/v1/") else _PROBLEM
        for operation in operations.values():
            answers = operation["responses"]
            answers["401"] = _answer("No token, an unknown one, or one that has expired", error)
            answers["403"] = _answer("The token does not have the scope", error)
            if "422" in answers:
                answers["422"] = _answer("An invalid parameter; the message names it", error)
            if path in LIMITED:
                operation["security"] = [{}, *either]
    # FastAPI's own form of 422.
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)


def form_body(
    file: str, about_file: str, properties: dict[str, Any], *required: str
) -> dict[str, Any]:
    """Return ``openapi_extra`` of a route that reads a form itself. The field ``file`` is
    required, and so are those named in ``required``."""
    binary = {"type": "string", "format": "binary", "description": about_file}
    schema = {"required": [file, *required], "properties": {file: binary, **properties}}
    return request_body("multipart/form-data", {"type": "object", **schema})


def request_body(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``openapi_extra`` of a route that reads its body itself."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
