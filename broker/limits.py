"""Limits of the routing core, each with its unit and what happens when it is reached.

``Limits`` are settings (``broker.settings``); the rest are constants.
"""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    queue_audio_ms_max: int
    queue_jobs_max: int
    lease_s: float
    attempt_deadline_s: float


ATTEMPT_TIMES_EXPECTED = 5.0
"""An attempt is not lost before this multiple of the time that its worker is expected to take for
all that it holds."""
ATTEMPTS_MAX = 3
"""Attempts lost by workers; then the job ends with the error ``chunk_failed``."""
BULK_EVERY_ASSIGNMENTS = 8
"""While both lanes have jobs, every eighth assignment is a bulk job."""
PARTIAL_WAIT_S_MAX = 2.0
"""A partial job that waited longer is out of date: dropped and counted."""
PARTIAL_CREDITS_SHARE = 4
"""Partial jobs hold at most a quarter of all credits (at least one), so that final jobs find room.
"""
PARTIAL_DELAY_S_MAX = 0.25
"""A worker that holds other jobs gets a partial job only if all of it is expected to take no
longer: a final job that arrives next waits for it."""
BULK_DELAY_S_MAX = 0.5
"""A worker that holds more work than this gets no bulk job, unless one is due: a live job that
arrives next waits for this work."""
PARTIAL_SPARE_SHARE = 0.5
"""Partial jobs take at most this share of the time that final jobs leave to the workers …"""
PARTIAL_BURST_S = 2.0
"""… of which each worker saves up at most this, for many utterances that begin at once."""
SERVED_FLOWS_MAX = 20_000
"""Idle sessions whose virtual start time is remembered; beyond it the earliest is forgotten."""
STREAMS_REMEMBERED_MAX = 8_192
"""Sessions of a model whose worker of the last partial job is remembered; beyond it the one without
a partial job for longest is forgotten, and its next one goes to any worker."""
STALE_HEAP_ENTRIES_MAX = 64
"""Stale entries of a heap beyond its share of live ones; then the heap is rebuilt."""
CREDITS_MAX = 1_024
"""Per worker; further credits are not used."""
WORKERS_MAX = 1_024
"""Further workers are not registered, and counted."""
GATEWAYS_MAX = 1_024
"""Further gateways are not served, and counted."""
PROTOCOL_ERRORS_MAX = 16
"""Messages of one worker that no correct worker sends; then it is quarantined."""
QUARANTINED_MAX = 1_024
"""Quarantined identities remembered; beyond it the oldest is forgotten."""
PAST_ATTEMPTS_MAX = 1_024
"""Attempts remembered per worker after they were taken from it: their results are late, not errors
of the worker."""
PAST_WORKERS_MAX = 64
"""Unregistered workers whose past attempts are remembered, in case they register again."""
WELCOME_INTERVAL_S = 1.0
"""Minimum interval of ``Welcome`` to one unregistered worker."""
LOAD_INTERVAL_S = 0.25
"""Interval of ``Load`` to each gateway."""
EST_WAIT_REPORTED_MS_MAX = 600_000
"""Reported when work waits and there is no worker."""
THROUGHPUT_INITIAL_RTFX = 20.0
"""Inverse real-time factor assumed of a worker that does not report a measured one."""
THROUGHPUT_INITIAL_WEIGHT_S = 0.2
"""Weight of the initial or reported factor, in busy time."""
THROUGHPUT_MIN_RTFX = 0.01
"""Lower bound of a worker's factor: waiting times are divided by it."""
THROUGHPUT_EXPECTED_S_MIN = 1e-9
"""Lower bound of a job's expected time: speeds and slowness are divided by it."""
COST_S_MAX = 600.0
"""Upper bound of the time that a worker reports for a batch or an utterance."""
BATCH_PADDING = 0.25
"""Padding of a large batch as a share of its audio: expected, as utterances differ in length."""
UTTERANCE_MS_INITIAL = 3_000.0
"""Average length assumed of utterances until some are answered."""
UTTERANCE_WEIGHT = 1 / 32
"""Weight of one answered utterance in the average length."""
THROUGHPUT_HALF_LIFE_S = 5.0
"""Busy time after which a measurement counts for half."""
MODELS_MAX = 64
"""Served models. Workers of a further one are not registered, its jobs refused, both counted."""
MODEL_REMEMBERED_S = 600.0
"""A model without workers and jobs is reported as unavailable for this long; then it is unknown."""
ARRIVALS_HALF_LIFE_S = 3.0
"""Time after which arrived audio counts for half in the arrival rate."""
UTTERANCE_S_MAX = 20.0
"""Most that one utterance counts in the arrival rate: about the longest that gateways cut."""
RATED_SESSIONS_MAX = 8_192
"""Sessions tracked by the arrival rate; beyond it the session idle longest counts as new."""
PAUSE_S = 1.0
"""A longer time between two ticks means that the broker was stopped: leases are extended."""
