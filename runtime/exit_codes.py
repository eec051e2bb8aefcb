"""Exit codes that mean something to the supervisor (values from BSD ``sysexits.h``)."""

OK = 0
FAILURE = 1
"""A crash, or work that could not be finished in time."""
UNAVAILABLE = 69
"""Something this process needs for good is not to be had, such as its port: don't restart."""
CONFIG = 78
"""A setting is wrong: restarting cannot help."""

FINAL = frozenset({OK, UNAVAILABLE, CONFIG})
