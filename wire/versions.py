"""The range of protocol versions that this release speaks, and the choice of one.

Fields do not need a new version. A receiver ignores fields that it does not know, and a missing
field takes its default. A new version is needed when an old receiver would misread a message: a
field without a default, a changed meaning, a new value of a ``Literal``.

``Hello`` and ``Ready`` carry a peer's range. The broker answers with ``Welcome`` and the highest
version of both ranges, or with ``Refused``. These four are sent in version 1 by every release, so
that releases without a common version still understand the refusal.
"""

from __future__ import annotations

from typing import Final

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1


def choose(peer_min: int, peer_max: int) -> int | None:
    """The highest version that this release and a peer both speak; None if there is none."""
    version = min(peer_max, VERSION_MAX)
    return version if version >= max(peer_min, VERSION_MIN) else None
