"""Models, and fields of requests. Transcripts: tests/integration/test_openai.py."""

from __future__ import annotations

from typing import Any

from gateway.dialects.fields import HOTWORDS_MAX
from tests.gateway.web.test_file_transcription import Gateway, client_of, code_of, post


async def test_a_form_without_a_model_is_refused() -> None:
    response = await post(Gateway())
    assert (response.status_code, code_of(response)) == (400, "missing_required_parameter")
    assert response.json()["error"]["param"] == "model"


async def test_a_form_may_have_every_hotword_that_a_session_may_have() -> None:
    words = [f"word {number}" for number in range(HOTWORDS_MAX)]
    form: dict[str, Any] = {"keywords[]": words}
    taken = await post(Gateway(), model="nope", **form)
    assert code_of(taken) == "model_not_found", "the form itself is valid"
    form["keywords[]"].append("one more")
    refused = await post(Gateway(), model="nope", **form)
    assert (refused.status_code, code_of(refused)) == (400, "invalid_value")
    assert "at most 200 words" in refused.json()["error"]["message"]


async def test_translations_are_refused_as_openai_refuses() -> None:
    async with client_of(Gateway()) as client:
        response = await client.post("/v1/audio/translations", files={"file": ("a", b"RIFF")})
    assert (response.status_code, code_of(response)) == (400, "translation_unavailable")


async def test_the_models_are_those_of_the_workers() -> None:
    async with client_of(Gateway()) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        one = await client.get("/v1/models/iic/other")
        none = await client.get("/v1/models/nope")
    assert [model["id"] for model in listed] == ["demo", "iic/other"]
    assert one.json() == listed[1]
    assert (one.json()["workers"], one.json()["abilities"]["hotwords"]) == (2, "words")
    assert (none.status_code, code_of(none)) == (404, "model_not_found")


async def test_an_unknown_model_is_answered_with_the_list() -> None:
    gateway = Gateway()
    response = await post(gateway, model="nope")
    assert (response.status_code, code_of(response)) == (404, "model_not_found")
    assert "served models: demo, iic/other" in response.json()["error"]["message"]
    assert gateway.gate.entered == 0
