from __future__ import annotations

import subprocess
import sys


def test_watched_series_exist_before_their_first_event() -> None:
    program = (
        "import asr_worker.metrics, prometheus_client as p; print(p.generate_latest().decode())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert b'asr_worker_jobs_discarded_total{reason="duplicate"} 0.0' in shown
    assert b'asr_worker_frames_rejected_total{reason="malformed"} 0.0' in shown
    assert b'asr_worker_recognitions_total{outcome="failure"} 0.0' in shown
