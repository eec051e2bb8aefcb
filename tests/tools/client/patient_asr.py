"""The command ``asr``, which waits a minute for a server on a busy machine to be contacted.

``python -m tests.tools.client.patient_asr``.
"""

from __future__ import annotations

from asr_client import __main__ as asr
from asr_client import transcribe_command

MODULE = "tests.tools.client.patient_asr"

if __name__ == "__main__":
    transcribe_command.CONTACT_S = 60.0  # type: ignore[misc]
    asr.main()
