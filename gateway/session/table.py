"""Lookup of running and recently ended sessions."""

from __future__ import annotations

from gateway.session.resume import same_hash, token_hash
from gateway.session.runner import SessionRunner
from wire.messages import Claimed

FINISHED_KEPT_MAX = 10_000
"""Ended sessions whose final result can be sent again. Beyond it the oldest is forgotten and
answered from the database."""


class SessionTable:
    """``keep_s`` is how long an ended session is kept."""

    def __init__(self, keep_s: float) -> None:
        self.running: dict[str, SessionRunner] = {}
        self._finished: dict[str, tuple[float, SessionRunner]] = {}
        self._keep_s = keep_s

    def find(self, session_id: str) -> SessionRunner | None:
        """The session, running or ended, of any tenant."""
        _, ended = self._finished.get(session_id, (0.0, None))
        return self.running.get(session_id, ended)

    def find_own(self, session_id: str, tenant: str) -> SessionRunner | None:
        """The session, running or ended, if it is the tenant's."""
        runner = self.find(session_id)
        return runner if runner is not None and runner.session.tenant == tenant else None

    def end(self, runner: SessionRunner, now_s: float) -> bool:
        """``runner`` has ended. Returns False if it was handed over or forgotten before."""
        session_id = runner.session.session_id
        if self.running.get(session_id) is not runner:
            return False
        del self.running[session_id]
        if runner.session.resumable:
            self._finished[session_id] = (now_s + self._keep_s, runner)
        return True

    def forget(self, session_id: str) -> None:
        self.running.pop(session_id, None)
        self._finished.pop(session_id, None)

    def forget_old(self, now_s: float) -> None:
        """Remove ended sessions after ``keep_s``, or beyond ``FINISHED_KEPT_MAX``."""
        while self._finished:
            session_id, (keep_until_s, _) = next(iter(self._finished.items()))
            if now_s < keep_until_s and len(self._finished) <= FINISHED_KEPT_MAX:
                return
            del self._finished[session_id]

    def hand_over(self, claimed: Claimed) -> bool:
        """Another gateway has claimed a session with its client's token. Returns whether the
        session was here."""
        if self.claimed(claimed) is None:
            return False
        return self.supersede(claimed.session_id, claimed.generation - 1)

    def claimed(self, claimed: Claimed) -> SessionRunner | None:
        """The claimed session, if it is here and the token is its own."""
        runner = self.find(claimed.session_id)
        if runner is None or not has_token(runner, claimed.resume_token_hash):
            return None
        return runner

    def supersede(self, session_id: str, generation: int) -> bool:
        """A newer generation of a session is stored. Returns whether this ``generation``, or an
        older one, was here."""
        runner = self.find(session_id)
        if runner is None or runner.session.resume_point.generation > generation:
            return False
        self.forget(session_id)
        runner.hand_over()
        return True


def has_token(runner: SessionRunner, shown_hash: str) -> bool:
    """Whether a token with ``shown_hash`` is the one issued for the session."""
    return same_hash(token_hash(runner.session.resume_token), shown_hash)
