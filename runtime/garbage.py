"""Python's cyclic garbage collector, for processes with many long-lived objects.

Its default thresholds come from small programs: a gateway of 500 sessions spent a tenth of its time
looking through objects that live as long as their sessions, and stood still for 0.2 s now and then.
Nearly all of our objects are freed by their reference counts; the collector is for the few cycles
that exceptions and tasks leave.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS_MAX = 10_000
"""Collections of the youngest come when so many more objects were made than freed."""
YOUNG_COLLECTIONS_MAX = 20
"""Then the middle generation is looked through as well."""
MIDDLE_COLLECTIONS_MAX = 50
"""Then all, if a quarter of them is new."""


def settle() -> None:
    """To be called once, when everything is imported and made that lasts as long as the process:
    none of it is looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, YOUNG_COLLECTIONS_MAX, MIDDLE_COLLECTIONS_MAX)
