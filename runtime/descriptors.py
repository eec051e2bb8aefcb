"""The limit of a process on its file descriptors."""

from __future__ import annotations

import resource

DESCRIPTORS_MAX = 65_536
"""As many as 10,000 connections need, with room. Some systems allow a billion, and a child process
of a library may close every possible descriptor one by one."""
DESCRIPTORS_MIN = 256
"""More than every process has when it is idle. It is the default of macOS."""


def shortage() -> str:
    """Raise a soft limit below ``DESCRIPTORS_MIN``. Return a message if that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        return f"{hard} open files are allowed, {DESCRIPTORS_MIN} are needed: raise `ulimit -n`"
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS_MIN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MIN, hard))
    return ""


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows, up to ``DESCRIPTORS_MAX``; return it.
    Shells set 1,024, which is for programs with ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_MAX, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
