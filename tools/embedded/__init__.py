"""``python -m tools.embedded``: a real PostgreSQL and a real Valkey server from pip wheels.

Each is started only where no URL names another one, keeps its files under ``DATA_DIR``, and
listens on a Unix socket only (``runtime.settings.embedded_socket_dir``), so that no TCP port can
be taken and several checkouts or tests never meet.
"""
