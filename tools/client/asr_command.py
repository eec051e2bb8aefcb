"""The installed command ``asr``. Ctrl-C ends it also while its packages are loaded."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as in shells."""


def main() -> None:
    """Run the command."""
    try:
        from asr_client.__main__ import main as run
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
