"""Writes results and session records to PostgreSQL, and confirms them after COMMIT."""
