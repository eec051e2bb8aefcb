"""Exit codes that the supervisor interprets (values from BSD ``sysexits.h``)."""

OK = 0
FAILURE = 1
"""A crash, or work left unfinished at a deadline."""
UNAVAILABLE = 69
"""A required resource, such as the port, is not available. Not restarted."""
CONFIG = 78
"""A setting is invalid. Not restarted."""

FINAL = frozenset({UNAVAILABLE, CONFIG})
"""They end the supervisor, too. Not ``OK``: ``kill`` of a gateway must not end the whole system."""
