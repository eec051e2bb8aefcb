"""Every limit of the routing core, with its unit and what happens when it is reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator may want to change, see ``broker.settings``; the rest is named below."""

    queue_audio_ms_max: int = 3_600_000
    """Audio accepted and not assigned, 32 bytes of memory per ms. Then: error ``overloaded``."""
    queue_jobs_max: int = 20_000
    """Jobs accepted and not assigned. Then: error ``overloaded``."""
    lease_s: float = 5.0
    """A worker or gateway silent for longer is gone: its jobs go to others, or are dropped."""
    attempt_deadline_s: float = 30.0
    """An attempt that takes longer is given up: the job goes to another worker, and this one gets
    nothing until it shows progress."""


ATTEMPTS_MAX = 3
"""Attempts lost by their workers; then the job ends with error ``chunk_failed``."""
BULK_EVERY_ASSIGNMENTS = 8
"""While both lanes wait, one assignment in so many is a bulk job."""
PARTIAL_WAIT_S_MAX = 2.0
"""A partial that waited longer is out of date: dropped and counted."""
PARTIAL_CREDITS_SHARE = 4
"""Partials hold at most one credit in so many (but one in any case), so that finals find room."""
CREDITS_MAX = 1_024
"""Per worker; more are not used."""
WORKERS_MAX = 1_024
GATEWAYS_MAX = 1_024
"""Peers known at a time; one more is not heard, and counted."""
OFFENCES_MAX = 16
"""Messages that no correct worker sends, from one worker; then it is quarantined."""
QUARANTINED_MAX = 1_024
"""Quarantined identities remembered; beyond it the oldest is forgotten."""
PAST_ATTEMPTS_MAX = 1_024
"""Attempts remembered per worker that are no longer its own: their results are late, no offence."""
PAST_WORKERS_MAX = 64
"""Workers remembered after they are gone, in case they were only silent."""
WELCOME_EVERY_S = 1.0
"""A worker unknown to us is told so at most this often: it needs one Welcome, not one for each of
its messages under way."""
LOAD_EVERY_S = 0.25
EST_WAIT_MS_MAX = 600_000
"""Told when no estimate is possible, because there is work and no worker."""
THROUGHPUT_INITIAL_RTFX = 20.0
"""Assumed of a worker that does not tell what it measured, in seconds of audio per second."""
THROUGHPUT_INITIAL_WEIGHT_S = 0.2
"""How many busy seconds that, or what the worker told, counts for."""
THROUGHPUT_MIN_RTFX = 0.01
"""No worker counts for less, whatever it told or we measured: waiting times are divided by it."""
MODELS_TOLD_MAX = 64
"""Different models of workers that gateways are told of; the others work, unnamed."""
THROUGHPUT_HALF_LIFE_S = 5.0
"""Busy time after which a measurement counts for half."""
ARRIVALS_HALF_LIFE_S = 3.0
"""Time after which arrived audio counts for half in the measured rate."""
SPOKEN_S_MAX = 20.0
"""An utterance counts there for so much at most: about the longest that gateways cut."""
SPEAKING_SESSIONS_MAX = 8_192
"""Sessions that the rate tells from others; of one more the one silent for longest is as new."""
PAUSE_S = 1.0
"""A longer time between two ticks means that we ourselves were stopped: not others' silence."""
