"""Core: the figures that each gateway publishes, and their sum over all gateways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.telemetry.activity import SLOTS_MAX, Slot, WorkerFigures
from wire.messages import Usage


class SlotFigures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ``Slot`` without its workers. ``age`` counts slots before the current one."""

    age: int
    latencies: dict[int, int] = {}
    results: int = 0
    failures: int = 0
    audio_ms: int = 0
    sessions_max: int = 0
    queued_max: int = 0
    refused: dict[str, int] = {}
    errors: dict[str, int] = {}


class GatewayFigures(Struct, frozen=True, kw_only=True, tag_field="kind", tag="gateway"):
    gateway_id: str
    usage: Usage
    connections: int
    sessions_active: int
    sessions_started: int
    audio_seconds: float
    records_waiting: int
    records_waiting_max: int
    slots: tuple[SlotFigures, ...]
    workers: dict[str, WorkerFigures]


class WorkerState(Struct, frozen=True, kw_only=True):
    """A worker as the broker knows it."""

    worker_id: str
    model: str
    device: str
    jobs: int
    credits: int
    draining: bool
    usage: Usage | None = None


class BrokerFigures(Struct, frozen=True, kw_only=True, tag_field="kind", tag="broker"):
    usage: Usage
    workers: tuple[WorkerState, ...] = ()


class PersistenceFigures(Struct, frozen=True, kw_only=True, tag_field="kind", tag="persistence"):
    usage: Usage


Figures = GatewayFigures | BrokerFigures | PersistenceFigures
_DECODER = msgspec.json.Decoder(Figures)


def decoded(texts: Iterable[str]) -> list[Figures]:
    """Return the figures in ``texts``, except those of releases with another format."""
    found = []
    for text in texts:
        try:
            found.append(_DECODER.decode(text))
        except (msgspec.MsgspecError, UnicodeEncodeError):
            continue
    return found


def slot_figures(slots: Sequence[Slot]) -> tuple[SlotFigures, ...]:
    """Return the published form of ``slots``, the current one last: without empty ones."""
    last = slots[-1].number
    _, *names = SlotFigures.__struct_fields__
    published = (
        SlotFigures(age=last - slot.number, **{name: getattr(slot, name) for name in names})
        for slot in slots
    )
    return tuple(slot for slot in published if slot != SlotFigures(age=slot.age))


def summed_slots(gateways: Iterable[GatewayFigures]) -> list[Slot]:
    """Return the sum of the slots of all gateways, the current one last. Maxima of sessions are
    summed as well, so they are upper bounds; the queue is that of the system."""
    slots = [Slot(number) for number in range(SLOTS_MAX)]
    for gateway in gateways:
        for part in gateway.slots:
            if not 0 <= part.age < SLOTS_MAX:
                continue
            slot = slots[SLOTS_MAX - 1 - part.age]
            slot.latencies.update(part.latencies)
            slot.results += part.results
            slot.failures += part.failures
            slot.audio_ms += part.audio_ms
            slot.sessions_max += part.sessions_max
            slot.queued_max = max(slot.queued_max, part.queued_max)
            slot.refused.update(part.refused)
            slot.errors.update(part.errors)
    return slots


def summed_states(brokers: Iterable[BrokerFigures]) -> list[WorkerState]:
    """Return each worker once, by its id: a worker has jobs and credits of each broker."""
    found: dict[str, WorkerState] = {}
    for worker in (worker for broker in brokers for worker in broker.workers):
        known = found.get(worker.worker_id)
        if known is not None:
            worker = replace(
                worker,
                jobs=known.jobs + worker.jobs,
                credits=known.credits + worker.credits,
                draining=known.draining or worker.draining,
                usage=worker.usage or known.usage,
            )
        found[worker.worker_id] = worker
    return [found[worker_id] for worker_id in sorted(found)]


def errors_of(slots: Iterable[Slot]) -> dict[str, int]:
    """Failed utterances and refused connections by code."""
    errors: Counter[str] = Counter()
    for slot in slots:
        errors.update(slot.errors)
        errors.update(slot.refused)
    return dict(errors)
