"""The messages of the native WebSocket protocol as an AsyncAPI 3 document, made from their
declarations."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from gateway.dialects import native
from gateway.dialects.fields import SESSION_ID_PATTERN
from gateway.session import events as e

ADDRESS = "/ws/asr"
CLIENT: dict[str, type] = {
    "start": native.StartMessage,
    "chunk": native.ChunkMessage,
    "finish": native.FinishMessage,
}
"""Messages of the client, in the order of a session."""
ANSWERS: dict[str, type] = {
    "started": e.Started,
    "resumed": e.Resumed,
    "received": e.ChunkReceived,
    "partial_result": e.PartialText,
    "chunk_result": e.SegmentText,
    "chunk_result_of_silence": e.SilentFile,
    "final_result": e.Finished,
    "error": e.Problem,
}
_HEADS: dict[type, dict[str, str]] = {
    **native.HEADS,
    e.ChunkReceived: {"type": "ack", "status": "received"},
}
_NOT_SENT: dict[type, tuple[str, ...]] = {
    e.PartialText: ("start_ms", "end_ms", "tokens"),
    e.SegmentText: ("tokens",),
}
"""Fields of answers that this protocol does not have."""
_REFERENCES = "#/components/schemas/{name}"


def add_asyncapi(app: FastAPI) -> None:
    document = asyncapi_document()

    @app.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi() -> JSONResponse:
        return JSONResponse(document)


def asyncapi_document() -> dict[str, Any]:
    """Return the document. A test compares its schemas with encoded answers."""
    kinds = CLIENT | ANSWERS
    schemas, components = msgspec.json.schema_components(kinds.values(), ref_template=_REFERENCES)
    for kind in CLIENT.values():
        # In JSON Schema, the ends of a pattern are those of ECMAScript.
        session_id = components[kind.__name__]["properties"]["session_id"]
        session_id["pattern"] = f"^{SESSION_ID_PATTERN}$"
    for kind in ANSWERS.values():
        _as_sent(kind, components[kind.__name__])
    messages: dict[str, Any] = {
        name: {
            "name": name,
            "summary": " ".join(components[kind.__name__].get("description", "").split()),
            "payload": schema,
        }
        for (name, kind), schema in zip(kinds.items(), schemas, strict=True)
    }
    messages["audio"] = {
        "name": "audio",
        "summary": "A binary frame: the next chunk of audio. It takes the next chunk_index.",
        "contentType": "application/octet-stream",
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Native WebSocket protocol", "version": "1"},
        "defaultContentType": "application/json",
        "channels": {
            "recognition": {
                "address": ADDRESS,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "fromClient": _operation("receive", [*CLIENT, "audio"]),
            "toClient": _operation("send", list(ANSWERS)),
        },
        "components": {"messages": messages, "schemas": components},
    }


def _operation(action: str, names: list[str]) -> dict[str, Any]:
    channel = "#/channels/recognition"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in names],
    }


def _as_sent(kind: type, schema: dict[str, Any]) -> None:
    """Change the schema of an answer's declaration to that of its message."""
    properties = schema["properties"]
    for name in _NOT_SENT.get(kind, ()):
        del properties[name]
    if kind is e.Finished:
        properties["duration"] = {"type": "number", "description": "Seconds of audio."}
        del properties["duration_ms"]
    heads = {name: {"const": value} for name, value in _HEADS[kind].items()}
    schema["properties"] = {**heads, **properties}
    schema["required"] = [*heads, *(n for n in schema.get("required", ()) if n in properties)]
    schema["additionalProperties"] = False
