"""Takeover of sessions from other gateways, and of sessions that this gateway has released.

Safety follows from generations: once the claim's record is stored, anything of an older generation
is rejected, so that a read after that returns the final state of the older generations.
Completeness follows from message order: the claim's record takes the same path as results and
records, from the broker to persistence, so that everything published before it is stored too. If
the session has moved to another broker in the meantime, its last results may be rejected; the new
generation then recognises them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from gateway.session import events as e
from gateway.session.resume import (
    NOT_RESUMABLE,
    UNAVAILABLE,
    ResumePoint,
    answer_after_claim,
    has_end,
    is_refused,
    needs_claim,
    token_hash,
)
from gateway.telemetry.metrics import TAKEOVERS
from persistence.reads import SessionReader, StoreUnavailable
from wire.messages import Claim, Record, StoredKey
from wire.records import RESUMED_RECORD_SEQ, SessionResumed, to_body

TAKEOVER_S = 5.0
"""Deadline for storing the claim and reading the session; then ``resume_unavailable``."""
TAKEOVERS_MAX = 16
"""Takeovers at the same time. After a gateway is lost, its sessions arrive together: if all of them
waited for the database at once, most would reach the deadline, and all begin again."""
QUEUE_S_MAX = 10.0
"""Longest wait for the takeovers before; then ``resume_unavailable``."""
CLAIM_RESEND_S = 1.0
"""Interval at which a claim is sent until it is stored."""


class Send(Protocol):
    """Sends to the broker. ``again``: the message was sent before, and not confirmed in time."""

    def __call__(self, message: Claim | Record, /, *, again: bool = False) -> bool: ...


class Takeover:
    """The caller passes every stored key to ``note_stored``."""

    def __init__(self, gateway_id: str, reader: SessionReader, send: Send) -> None:
        self._gateway_id = gateway_id
        self._reader = reader
        self._send = send
        self._claims: dict[str, tuple[int, asyncio.Event]] = {}
        self._free = asyncio.Semaphore(TAKEOVERS_MAX)

    def note_stored(self, keys: Iterable[StoredKey]) -> None:
        for key in keys:
            if key.kind == "record" and key.seq == RESUMED_RECORD_SEQ:
                generation, stored = self._claims.get(key.session_id, (-1, None))
                if stored is not None and generation == key.generation:
                    stored.set()

    async def take(
        self, session_id: str, resume_token: str, tenant: str
    ) -> ResumePoint | e.Problem:
        """The resume point of the tenant's session, or the problem to answer.

        An unknown session starts from the beginning and keeps ``resume_token``: if a new token were
        lost on its way to the client, the client could not resume again.
        """
        if session_id in self._claims:
            return UNAVAILABLE  # The client has made two requests at once.
        self._claims[session_id] = (-1, asyncio.Event())
        try:
            async with asyncio.timeout(QUEUE_S_MAX) as deadline, self._free:
                deadline.reschedule(asyncio.get_running_loop().time() + TAKEOVER_S)
                taken = await self._take(session_id, token_hash(resume_token), tenant)
        except (StoreUnavailable, TimeoutError):
            taken = UNAVAILABLE
        finally:
            del self._claims[session_id]
        TAKEOVERS.labels(taken.code if isinstance(taken, e.Problem) else "taken").inc()
        return taken

    async def _take(self, session_id: str, shown_hash: str, tenant: str) -> ResumePoint | e.Problem:
        owner = await self._reader.owner_state(session_id, tenant)
        if owner is None and await self._reader.exists(session_id):
            # It is another tenant's, unless it was stored between the two reads.
            owner = await self._reader.owner_state(session_id, tenant)
            if owner is None:
                return NOT_RESUMABLE
        if is_refused(owner, shown_hash):
            return NOT_RESUMABLE
        generation = 1 if owner is None else owner["generation"] + 1
        stored = None
        if owner is not None and has_end(owner):
            # The segments' texts decide whether a session with an end is complete.
            stored = await self._reader.resume_state(session_id, tenant)
        if needs_claim(stored):
            await self._claim(session_id, generation, shown_hash)
            stored = await self._reader.resume_state(session_id, tenant)
        return answer_after_claim(stored, shown_hash, generation, self._gateway_id)

    async def _claim(self, session_id: str, generation: int, shown_hash: str) -> None:
        """Send the claim until it is stored."""
        stored = asyncio.Event()
        self._claims[session_id] = (generation, stored)
        claim = Claim(session_id=session_id, generation=generation, resume_token_hash=shown_hash)
        body = SessionResumed(gateway_id=self._gateway_id, resume_token_hash=shown_hash)
        record = Record(
            session_id=session_id,
            record_seq=RESUMED_RECORD_SEQ,
            body=to_body(body),
            generation=generation,
        )
        again = False
        while not stored.is_set():
            self._send(claim)
            self._send(record, again=again)
            again = True
            try:
                async with asyncio.timeout(CLAIM_RESEND_S):
                    await stored.wait()
            except TimeoutError:
                continue
