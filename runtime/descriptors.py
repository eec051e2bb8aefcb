"""File descriptors of a process that serves many connections."""

from __future__ import annotations

import resource

DESCRIPTORS_MAX = 65_536
"""As many as 10,000 connections need, with room. Some systems allow a billion, and a child process
of a library may close every possible descriptor one by one."""


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows, up to ``DESCRIPTORS_MAX``; return it.
    Shells set 1,024, which is for programs with ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_MAX, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
