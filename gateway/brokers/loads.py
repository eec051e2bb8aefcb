"""Core: the loads of several brokers as one, for admission and the dashboard.

All brokers share the same workers, and each measures their full speed. Workers and speed are
therefore the largest that a broker reports. Audio, jobs and expected waits are summed: a job waits
at its worker for those of the other brokers. The links to workers are those of the broker whose
links are fullest. Each gateway reports the audio that it expects to all brokers, so the largest sum
counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

from msgspec.structs import replace

from wire.messages import Load, ServedModel

_SUMMED_OF_MODEL = (
    *("queued_audio_ms", "est_wait_ms", "arriving_audio_rate", "partials_busy", "workers_busy"),
)
_LARGEST_OF_MODEL = ("workers", "throughput_rtfx", "expected_audio_rate", "utterance_ms")
_SUMMED = (
    *("queued_audio_ms", "queued", "in_flight", "failed_total", "est_wait_ms"),
    *("arriving_audio_rate", "workers_busy"),
)
_LARGEST = ("workers", "throughput_rtfx", "expected_audio_rate", "gateways")

L = TypeVar("L", Load, ServedModel)


def combined(loads: Sequence[Load]) -> Load:
    """Return the load of all brokers, at least one, from reports of about the same time."""
    if len(loads) == 1:
        return loads[0]
    by_name: defaultdict[str, list[ServedModel]] = defaultdict(list)
    for load in loads:
        for model in load.served:
            by_name[model.name].append(model)
    served = (_joined(each, _SUMMED_OF_MODEL, _LARGEST_OF_MODEL) for each in by_name.values())
    fullest = max(loads, key=_link_utilisation)
    return replace(
        _joined(loads, _SUMMED, _LARGEST),
        workers_sent_rate=fullest.workers_sent_rate,
        workers_sent_peak_rate=fullest.workers_sent_peak_rate,
        workers_link_rate=fullest.workers_link_rate,
        models=tuple(sorted({name for load in loads for name in load.models})),
        served=tuple(sorted(served, key=attrgetter("name"))),
    )


def _link_utilisation(load: Load) -> float:
    capacity = load.workers_link_rate
    return load.workers_sent_peak_rate / capacity if capacity else 0.0


def _joined(parts: Sequence[L], summed: Sequence[str], largest: Sequence[str]) -> L:
    """Other fields are those of the part with most workers."""
    most: Callable[[L], int] = attrgetter("workers")
    values = {name: sum(getattr(part, name) for part in parts) for name in summed}
    values |= {name: max(getattr(part, name) for part in parts) for name in largest}
    values["workers_busy"] = min(values["workers_busy"], values["workers"])
    return replace(max(parts, key=most), **values)
