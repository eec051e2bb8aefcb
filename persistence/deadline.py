"""A limit on how long a database may keep silent.

PostgreSQL's own ``statement_timeout`` does not help when the server is stopped or unreachable,
and cancelling waits for its answer too. Shutting down our end of the socket always works: psycopg
then sees a lost connection.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


def cut(connection: psycopg.BaseConnection[Any]) -> None:
    """End ``connection`` from any thread; whoever waits on it gets ``OperationalError``."""
    try:
        ours = socket.socket(fileno=socket.dup(connection.fileno()))
    except (psycopg.OperationalError, OSError):
        return  # already closed, which is what was asked for
    with ours:
        try:
            ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the server's end is gone already


@contextmanager
def cut_after(connection: psycopg.BaseConnection[Any], timeout_s: float) -> Iterator[None]:
    """``cut`` the connection if the block takes longer than ``timeout_s``."""
    timer = threading.Timer(timeout_s, cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
