"""The broker: balances jobs over workers, routes each result back to its gateway, and publishes
results and records to persistence. It keeps nothing on disk and looks into no audio."""
