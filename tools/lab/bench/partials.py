"""Live sessions on a slow model with and without partial results: the latency of final results, and
of each session's first partial result. The model is imitated: one core of Paraformer with 220 M
parameters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain

from tools.lab.bench.figures import Figure
from tools.lab.harness.stack import Stack, supervised_stack
from tools.lab.loadtest.figures import percentile
from tools.lab.loadtest.load import Load
from tools.lab.loadtest.user import Outcome

MODEL = "fake:150ms+64ms/s*8"
SESSIONS = 6
DURATION_S = 60.0
RAMP_S = 6.0
WAIT_S = 120.0
PROMISED_TIMES = 1.3
PROMISED_FIRST_MS = 2_000.0
PROMISED_P95_MS = 3_000.0


def final_p95_ms(outcomes: Sequence[Outcome]) -> float:
    """The 95th percentile from the end of speech to its text, of all sessions."""
    return percentile([ms for each in outcomes for _, ms in each.segment_ms], 95)


def first_partial_ms(outcomes: Sequence[Outcome]) -> float:
    """The longest time from the beginning of a session's audio to its first partial result;
    infinite if a session has none."""
    return max(each.first_partial_ms for each in outcomes)


def run(stack: Stack, *, partials: bool) -> list[Outcome]:
    load = Load(
        stack.url(),
        sessions=SESSIONS,
        duration_s=DURATION_S,
        ramp_s=RAMP_S,
        seed=1,
        partials=partials,
    )
    outcomes = load.wait(DURATION_S + WAIT_S)
    # The imitated model's texts are hashes of the audio, so they are not those spoken.
    failed = [each.reason for each in outcomes if each.status not in ("succeeded", "wrong_text")]
    assert not failed, failed
    return outcomes


def measure() -> list[Figure]:
    settings = {"ASR_MODEL": MODEL, "LOG_LEVEL": "error"}
    with supervised_stack(settings, workers=1) as stack:
        without = run(stack, partials=False)
        time.sleep(RAMP_S)
        beside = run(stack, partials=True)
    without_ms, beside_ms = final_p95_ms(without), final_p95_ms(beside)
    count = sum(each.partials for each in beside)
    reference = f"{len(list(chain(*(each.segment_ms for each in beside))))} utterances"
    return [
        Figure(
            what=f"final results of {SESSIONS} sessions on {MODEL} with partials, over without "
            "(p95)",
            value=beside_ms / without_ms,
            unit="×",
            reference=f"with {beside_ms:.0f} ms, without {without_ms:.0f} ms; {reference}, "
            f"{count} partial results",
            at_most=PROMISED_TIMES,
        ),
        Figure(
            what="final results with partials (p95)",
            value=beside_ms,
            unit="ms",
            reference=f"without {without_ms:.0f} ms",
            at_most=PROMISED_P95_MS,
        ),
        Figure(
            what="a session's audio to its first partial result (the longest)",
            value=first_partial_ms(beside),
            unit="ms",
            reference="0.3 s of silence and the first 0.6 s of speech included",
            at_most=PROMISED_FIRST_MS,
        ),
    ]
