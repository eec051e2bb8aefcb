"""``python -m tools.embedded``: a PostgreSQL and a Valkey server from pip wheels.

A server is started only if no setting names another one. It keeps its files in ``DATA_DIR`` and
listens on a Unix socket only (``runtime.run_directory``), so it needs no TCP
port and several checkouts do not share a server.
"""
