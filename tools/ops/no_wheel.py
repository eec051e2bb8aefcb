"""Build backend of the repository's root (PEP 517): it refuses to build.

The server runs from its checkout or from an image, with its Procfile, models and migrations in
place. A wheel of its packages would install without an error and not run.
"""

from __future__ import annotations

import sys
from typing import NoReturn

MESSAGE = (
    "error: the server is not installed with pip: run it from its checkout with `make run`, "
    "or from its container image; the client is `pip install ./tools/client`"
)


def _refuse(*_: object, **__: object) -> NoReturn:
    sys.exit(MESSAGE)


# A front end calls one of the get_requires_ hooks first.
get_requires_for_build_wheel = get_requires_for_build_editable = _refuse
get_requires_for_build_sdist = build_wheel = build_editable = build_sdist = _refuse
