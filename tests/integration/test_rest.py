"""REST beside the WebSocket: health, history, one session, deletion, queue."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest

from asr_client import SessionError
from gateway.session.transcript import join_texts
from tests.integration.admitted import open_session
from tests.integration.speech import chunks_of, say, spoken
from tools.lab.harness.stack import Stack, wait_until


async def _say(stack: Stack, seed: int, session_id: str | None = None) -> tuple[str, str]:
    audio = spoken(seed, digits=(3, 4))
    stored_id, final = await say(stack.url(), audio, session_id=session_id, user_id="tester")
    assert final.stored
    return stored_id, final.text


def test_health_reports_parts_limits_and_model(stack: Stack) -> None:
    body: dict[str, Any] = {}

    def is_whole() -> bool:
        answer = stack.get("/api/v1/health")
        body.update(answer.body or {})
        return bool(
            answer.status == 200 and (body["status"], body["workers_ready"]) == ("ready", 2)
        )

    wait_until(is_whole, "all parts answer")
    assert body["funasr_ready"] and body["redis_ready"] and body["db_ready"]
    assert any("demo" in model for model in body["models"])
    assert body["limits"]["max_connections"] == {"value": 1000, "source": "default"}


async def test_history_is_newest_first_and_limited(stack: Stack) -> None:
    said = [await _say(stack, 3_000 + n) for n in range(3)]
    answer = await asyncio.to_thread(stack.get, "/api/v1/history?limit=2")
    assert answer.status == 200
    assert answer.body["total"] >= 3
    assert [(r["session_id"], r["preview"]) for r in answer.body["records"]] == said[:0:-1]
    assert answer.body["records"][0]["user_id"] == "tester"


async def test_fields_by_the_names_of_the_replaced_system(stack: Stack) -> None:
    session_id, text = await _say(stack, 3_050)
    history = await asyncio.to_thread(stack.get, "/api/v1/history?limit=1")
    (record,) = history.body["records"]
    assert (record["session_id"], record["audio_path"]) == (session_id, None)
    session = (await asyncio.to_thread(stack.get, f"/api/v1/session/{session_id}")).body
    assert (session["id"], session["final_text"], session["audio_path"]) == (session_id, text, None)
    assert join_texts(session["results"].values()) == text
    assert session["completed"] == dict.fromkeys(session["results"], True)

    def counted() -> bool:
        return bool(stack.get("/api/v1/stats").body["total_tasks"])

    # The totals are kept for some seconds.
    await asyncio.to_thread(wait_until, counted, "the totals of the database")
    stats = (await asyncio.to_thread(stack.get, "/api/v1/stats")).body
    assert stats["total_duration"] > 0 and stats["avg_rtf"] > 0
    assert stats["storage_used"].endswith(" MB")


async def test_a_live_session_can_be_seen(stack: Stack) -> None:
    async with open_session(stack.url()) as session:
        await session.send(b"\0\0" * 16_000)
        while session.acknowledged_chunks < 1:
            await asyncio.sleep(0.01)
        answer = await asyncio.to_thread(stack.get, f"/api/v1/session/{session.session_id}")
        assert answer.status == 200
        assert answer.body["live"] and answer.body["status"] == "active"
        assert answer.body["chunk_count"] == 1
        await session.finish()
        await session.final()


async def test_a_deleted_session_stays_deleted(stack: Stack) -> None:
    # Of a deletion that is not committed in time the answer is 202.
    for _ in range(10):
        session_id, _ = await _say(stack, 3_100)
        path = f"/api/v1/session/{session_id}"
        deleted = await asyncio.to_thread(stack.get, path, method="DELETE")
        if deleted.status != 202:
            break
    assert deleted.status == 200 and deleted.body["deleted"]
    assert deleted.body["message"] == "the session is deleted"
    assert (await asyncio.to_thread(stack.get, f"/api/v1/session/{session_id}")).status == 404
    history = await asyncio.to_thread(stack.get, "/api/v1/history?limit=1000")
    assert session_id not in [record["session_id"] for record in history.body["records"]]
    with psycopg.connect(stack.database_url) as connection:
        for table in ("asr_segments", "asr_chunks"):
            rows = connection.execute(
                f"SELECT count(*) FROM {table} WHERE session_id = %s",
                [session_id],
            ).fetchone()
            assert rows == (0,)
        text = connection.execute(
            "SELECT text FROM asr_sessions WHERE id = %s", [session_id]
        ).fetchone()
        assert text is None or not text[0]


async def test_a_live_session_can_be_deleted_and_stays_deleted(stack: Stack) -> None:
    audio = spoken(3_200)
    async with open_session(stack.url()) as session:
        for chunk in chunks_of(audio, "raw", "", 16_000, 1, 200):
            await session.send(chunk)
        deleted = await asyncio.to_thread(
            stack.get, f"/api/v1/session/{session.session_id}", method="DELETE"
        )
        assert deleted.status in (200, 202)
        with pytest.raises(SessionError):
            await session.final()
    path = f"/api/v1/session/{session.session_id}"
    await asyncio.to_thread(wait_until, lambda: stack.get(path).status == 404, "it is gone")


async def test_a_taken_session_id_is_refused(stack: Stack) -> None:
    session_id, _ = await _say(stack, 3_300)
    with pytest.raises(SessionError, match="session_exists"):
        async with open_session(stack.url(), session_id=session_id):
            pass


@pytest.mark.parametrize("session_id", [str(uuid.UUID(int=4)), "nobody", "0"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_all_unknown_sessions_have_the_same_answer(
    stack: Stack, session_id: str, method: str
) -> None:
    answer = stack.get(f"/api/v1/session/{session_id}", method=method)
    assert answer.status == 404
    text = "no such session"
    assert answer.body == {"code": "not_found", "message": text, "error": text}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/history?limit=-1",
        "/api/v1/history?limit=0",
        "/api/v1/history?limit=1000000000",
        "/api/v1/history?limit=x",
        "/api/v1/session/'%3B%20DROP%20TABLE%20asr_sessions",
        "/api/v1/session/%00",
        f"/api/v1/session/{'a' * 129}",
    ],
)
def test_bad_parameters_are_422(stack: Stack, path: str) -> None:
    answer = stack.get(path)
    assert (answer.status, answer.body["code"]) == (422, "invalid_request")


def test_queue_status_and_stats(stack: Stack) -> None:
    wait_until(lambda: stack.queue().get("workers") == 2, "both workers")
    queue = stack.get("/api/v1/asr/queue/status")
    assert queue.status == 200
    assert {"queued", "processing", "failed", "workers_busy", "est_wait_ms"} <= queue.body.keys()
    stats = stack.get("/api/v1/stats")
    assert stats.status == 200
    assert stats.body["queue"]["workers"] == 2


async def test_stats_report_recent_work_of_the_workers(stack: Stack) -> None:
    async def recent_stats() -> Any:
        return (await asyncio.to_thread(stack.get, "/api/v1/stats")).body["recent"]

    # Older results than this session's may be forgotten while it runs.
    for _ in range(10):
        before = await recent_stats()
        await _say(stack, 3_100)
        recent = await recent_stats()
        if recent["results"] > before["results"]:
            break
    assert recent["results"] > before["results"]
    assert 0 < recent["latency_ms"]["p50"] <= recent["latency_ms"]["p99"]
    assert sum(worker["results"] for worker in recent["workers"]) >= recent["results"]
    assert all(worker["batch_jobs_mean"] >= 1 for worker in recent["workers"])


def test_probes_metrics_and_docs(stack: Stack) -> None:
    assert stack.get("/livez").status == 200
    assert stack.get("/readyz").status == 200
    metrics = stack.get("/metrics")
    assert metrics.status == 200 and "asr_gateway_connections" in metrics.body
    paths = stack.get("/openapi.json").body["paths"]
    assert {"/api/v1/health", "/api/v1/history", "/api/v1/session/{session_id}"} <= paths.keys()


def test_the_pages_and_their_files(stack: Stack) -> None:
    for path in ("/", "/dashboard", "/docs"):
        page = stack.get(path)
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'self'" in page.headers["content-security-policy"]
    assert stack.get("/static/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in ("/static/nothing.js", "/static/..%2Fpages.py", "/static/../pages.py"):
        assert stack.get(path).status == 404


def test_admission_can_be_asked_for(stack: Stack) -> None:
    def admits() -> bool:
        answer = stack.get("/api/v1/admission")
        return bool(answer.status == 200 and answer.body == {"admitted": True})

    wait_until(admits, "a gateway that admits")


async def test_a_transcript_as_text_and_subtitles(stack: Stack) -> None:
    session_id, text = await _say(stack, 3_500)
    path = f"/api/v1/session/{session_id}"
    whole = (await asyncio.to_thread(stack.get, path)).body
    tokens = [token for segment in whole["segments"] for token in segment["tokens"]]
    assert join_texts(token["text"] for token in tokens) == text
    kinds = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
    for name, media_type in kinds.items():
        answer = await asyncio.to_thread(stack.get, f"{path}?format={name}")
        assert answer.status == 200
        assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert text in answer.body
    assert (await asyncio.to_thread(stack.get, f"{path}?format=doc")).status == 422
    missing = await asyncio.to_thread(stack.get, f"/api/v1/session/{uuid.uuid4()}?format=srt")
    assert missing.status == 404
