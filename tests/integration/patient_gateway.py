"""``python -m gateway`` that waits for an hour before it sends a record again by itself."""

from __future__ import annotations

from functools import partialmethod

from gateway import __main__ as gateway
from gateway.storage import outbox
from runtime import lifecycle

RESEND_S = 3_600.0

if __name__ == "__main__":
    lifecycle.die_with_parent()
    outbox.RESEND_INITIAL_S = outbox.RESEND_MAX_S = RESEND_S
    resends_late = partialmethod(outbox.Outbox.put_record, wait_s=RESEND_S)
    outbox.Outbox.put_record = resends_late  # type: ignore[method-assign, assignment]
    raise SystemExit(gateway.main())
