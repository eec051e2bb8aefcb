"""``python -m tools.embedded`` whose PostgreSQL waits a minute for its clients when it stops."""

from __future__ import annotations

from tools.embedded import __main__ as embedded
from tools.embedded.postgres import Postgres

MODULE = "tests.tools.embedded.patient_servers"

if __name__ == "__main__":
    (first, _), *further = Postgres.stop_signals
    Postgres.stop_signals = ((first, 60.0), *further)
    raise SystemExit(embedded.main())
