"""The range of protocol versions that this release speaks, and the choice of one.

A new version is needed when an old receiver would misread a message: a field without a default, a
changed meaning, a new value of a ``Literal``. Other fields need none.

``Hello`` and ``Ready`` carry a peer's range. The broker answers with ``Welcome`` and the highest
version of both ranges, or with ``Refused``. These four are sent in version 1 by every release, so
that releases without a common version still understand the refusal.
"""

from __future__ import annotations

from typing import Any, Final

from wire.messages import Refused

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1


def choose(peer_min: int, peer_max: int) -> int | None:
    """The highest version that this release and a peer both speak; None if there is none."""
    version = min(peer_max, VERSION_MAX)
    return version if version >= max(peer_min, VERSION_MIN) else None


def reason_of(refused: Refused) -> str:
    """The label of the counter of refusals."""
    if refused.setting:
        return "wrong_endpoint"
    return "system_refused" if refused.system_id else "version_refused"


def explain(refused: Refused, system_id: str) -> tuple[str, dict[str, Any]]:
    """The log event of a refused peer and its fields. ``system_id`` is the peer's own."""
    if refused.setting:
        return "wrong_endpoint", {
            "setting": refused.setting,
            "reason": "it leads to another endpoint of the broker",
        }
    if refused.system_id:
        return "system_refused", {"system_id": system_id, "broker": refused.system_id}
    return "protocol_version_refused", {
        "spoken": [VERSION_MIN, VERSION_MAX],
        "broker": [refused.version_min, refused.version_max],
    }


def of_one_system(own: str, other: str) -> bool:
    """Whether two processes may work together, by their SYSTEM_ID. A process of an earlier release
    has none, and may work with every other."""
    return own == other or not own or not other
