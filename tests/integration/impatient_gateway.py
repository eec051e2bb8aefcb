"""``python -m gateway`` that closes a client without an answer to its ping after a second."""

from __future__ import annotations

from gateway import __main__ as gateway
from runtime import lifecycle

PING_S = 0.5

if __name__ == "__main__":
    lifecycle.die_with_parent()
    gateway.PING_INTERVAL_S = gateway.PING_TIMEOUT_S = PING_S
    raise SystemExit(gateway.main())
