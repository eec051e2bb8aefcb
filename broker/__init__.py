"""The broker: balances jobs over workers, routes each result back to its gateway, and publishes
results and records to persistence. It stores nothing on disk and does not interpret audio."""

import runtime

runtime.end_by_sigterm()
