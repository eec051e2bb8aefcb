"""Exit codes that mean something to the supervisor (values from BSD ``sysexits.h``)."""

OK = 0
FAILURE = 1
"""A crash, or work that could not be finished in time."""
UNAVAILABLE = 69
"""Something this process needs for good is not to be had, such as its port: don't restart."""
CONFIG = 78
"""A setting is wrong: restarting cannot help."""

FINAL = frozenset({UNAVAILABLE, CONFIG})
"""A process that ended as it was asked to is started again, too: whoever asked it, and not its
supervisor, wants a fresh one (``kill`` of a gateway must not end the whole system)."""
