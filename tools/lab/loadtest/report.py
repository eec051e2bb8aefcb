"""The report of a run: Markdown, JSON and a plot."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.lab.loadtest.drift import drifts, table
from tools.lab.loadtest.figures import Latency, Summary, Targets, difference, percentile
from tools.lab.loadtest.run import Results
from tools.lab.loadtest.samples import Sample, Samples
from tools.lab.loadtest.user import Outcome

WRONG_SHOWN_MAX = 20
"""In the Markdown; the JSON holds all wrong texts."""
PLOT_BIN_S = 1.0


def write(directory: Path, summary: Summary, results: Results, targets: Targets) -> list[Path]:
    """Write ``loadtest_report.md``, ``.json``, ``.png`` and the samples; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    base = directory / "loadtest_report"
    plotted = plot(base.with_suffix(".png"), results)
    text = markdown(summary, results, targets, base.with_suffix(".png").name if plotted else None)
    base.with_suffix(".md").write_text(text, encoding="utf-8")
    base.with_suffix(".json").write_text(
        json.dumps(as_json(summary, results, targets), ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    samples = directory / "loadtest_samples.jsonl"
    results.samples.write(samples)
    written = [base.with_suffix(".md"), base.with_suffix(".json"), samples]
    return [*written, base.with_suffix(".png")] if plotted else written


def as_json(summary: Summary, results: Results, targets: Targets) -> dict[str, Any]:
    samples = results.samples
    return {
        "command": command(),
        "models": list(samples.models),
        "holds": summary.holds(targets),
        "texts_right": summary.texts_right,
        **summary.as_json(),
        "wall_s": round(results.wall_s, 1),
        "generator_cores": round(results.generator_cpu_s / max(results.wall_s, 1e-3), 3),
        "generator_late_ms": round(results.late_ms, 1),
        "cores": {kind: round(used, 3) for kind, used in sorted(samples.cores_used().items())},
        "cpu_ms_per_audio_s": round(_cpu_ms(summary, samples), 3),
        "rss_mb_max": {kind: round(mb) for kind, mb in sorted(samples.rss_mb_max().items())},
        "queued_max": samples.queue_max("queued"),
        "est_wait_ms_max": samples.queue_max("est_wait_ms"),
        "admission_closed_s": samples.closed_s(),
    }


def command() -> str:
    return "python -m tools.lab.loadtest " + shlex.join(sys.argv[1:])


def markdown(summary: Summary, results: Results, targets: Targets, image: str | None) -> str:
    verdict = "**holds**" if summary.holds(targets) else "**does not hold**"
    lines = [
        "# Load test",
        "",
        f"`{command()}`",
        "",
        f"Model: {', '.join(results.samples.models) or 'unknown'}.",
        "",
        f"{summary.sessions} sessions, {summary.audio_s / 60:.1f} minutes of audio, "
        f"{results.wall_s:.0f} s{' (stopped early)' if results.stopped else ''}: {verdict} "
        f"(every session complete with every word right, as many at once as were offered, "
        f"finish → final p95 ≤ "
        f"{targets.final_p95_ms:.0f} ms, segment end → result p95 ≤ "
        f"{targets.segment_p95_ms:.0f} ms).",
        "",
        "| sessions | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {count} |" for name, count in summary.statuses.items()),
        f"| stored before the final result | {summary.stored} |",
        f"| most at once | {summary.at_once} of {summary.offered_at_once} |",
        f"| 503 answers before admission | {summary.refusals} |",
        f"| resumed connections | {summary.resumes} |",
        f"| real-time factor (wall / audio), p50 | {_number(summary.rtf_p50, 3)} |",
        "",
        *latency_table(summary.latencies),
        "",
        *_system_table(results),
        "",
        f"Processor time of the system for a second of audio: "
        f"{_number(_cpu_ms(summary, results.samples), 2)} ms.",
    ]
    every_s = results.restart_every_s
    if drift := drifts(results.outcomes, results.samples.taken, every_s):
        lines += ["", *table(drift, every_s)]
    if summary.reasons:
        lines += ["", "| reason | sessions |", "| --- | --- |"]
        lines += [f"| {reason} | {count} |" for reason, count in summary.reasons.items()]
    if summary.wrong:
        lines += ["", "Wrong texts, `[-missing-]` and `{+added+}`:", ""]
        lines += [
            f"* `{session_id}`: {difference(expected, received)}"
            for session_id, expected, received in summary.wrong[:WRONG_SHOWN_MAX]
        ]
    if image is not None:
        lines += ["", f"![latencies, sessions, queue and processor use over time]({image})"]
    return "\n".join(lines) + "\n"


def latency_table(latencies: Sequence[Latency]) -> list[str]:
    return [
        "| latency, ms | count | p50 | p95 | p99 | max |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {found.name} | {found.count} | {_number(found.p50)} | {_number(found.p95)} "
            f"| {_number(found.p99)} | {_number(found.highest)} |"
            for found in latencies
        ),
    ]


def _system_table(results: Results) -> list[str]:
    samples = results.samples
    memory = samples.rss_mb_max()
    cores = samples.cores_used()
    generator = results.generator_cpu_s / max(results.wall_s, 1e-3)
    return [
        "| process | cores, mean | memory, MB, max |",
        "| --- | --- | --- |",
        *(f"| {kind} | {cores.get(kind, 0):.2f} | {memory[kind]:.0f} |" for kind in sorted(memory)),
        f"| load generator | {generator:.2f} | |",
        "",
        f"Queue: at most {samples.queue_max('queued'):.0f} jobs waiting, estimated wait at most "
        f"{samples.queue_max('est_wait_ms'):.0f} ms. The generator was late by "
        f"{results.late_ms:.0f} ms at most. {_yardstick(samples)}",
        "",
        f"Admission, sampled once a second: {_admission(samples.closed_s())}.",
    ]


def _cpu_ms(summary: Summary, samples: Samples) -> float:
    """Processor time of the system for a second of audio, in ms; 0 without audio."""
    return 1000 * sum(samples.cpu_s_used().values()) / summary.audio_s if summary.audio_s else 0.0


def _yardstick(samples: Samples) -> str:
    all_us = [sample.yardstick_us for sample in samples.taken]
    return (
        f"The machine: a fixed computation took {percentile(all_us, 50):.0f} µs of processor time "
        f"in the median, {percentile(all_us, 0):.0f} to {percentile(all_us, 100):.0f} µs."
    )


def _admission(closed_s: tuple[float, float | None] | None) -> str:
    if closed_s is None:
        return "always open"
    first_s, open_s = closed_s
    until = "closed at the end" if open_s is None else f"open for good from {open_s:.0f} s on"
    return f"first closed at {first_s:.0f} s, {until}"


def _number(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def plot(path: Path, results: Results) -> bool:
    """Plot four panels over time. Without matplotlib (an extra), write nothing, return False."""
    try:
        import matplotlib.figure
    except ImportError:
        return False
    figure = matplotlib.figure.Figure(figsize=(11, 9), layout="constrained")
    latencies, sessions, queue, cores = figure.subplots(4, 1, sharex=True)
    _plot_latencies(latencies, results.outcomes)
    _plot_sessions(sessions, results.outcomes, results.wall_s)
    _plot_system(queue, cores, results.samples.taken)
    cores.set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    return True


def _plot_latencies(axes: Any, outcomes: Sequence[Outcome]) -> None:
    finals = [(o.ended_s, o.final_ms) for o in outcomes if o.final_ms is not None]
    kinds = (
        ("segment end → result", [pair for o in outcomes for pair in o.segment_ms]),
        ("finish → final", finals),
        ("chunk ack", [pair for o in outcomes for pair in o.ack_ms]),
    )
    for name, pairs in kinds:
        bins: dict[int, list[float]] = {}
        for at_s, milliseconds in pairs:
            bins.setdefault(int(at_s / PLOT_BIN_S), []).append(milliseconds)
        times = sorted(bins)
        axes.plot(
            [time * PLOT_BIN_S for time in times],
            [percentile(bins[time], 95) for time in times],
            label=f"{name}, p95",
        )
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    axes.legend(loc="upper right", fontsize="small")


def _plot_sessions(axes: Any, outcomes: Sequence[Outcome], wall_s: float) -> None:
    times = [i * PLOT_BIN_S for i in range(int(wall_s / PLOT_BIN_S) + 1)]
    came = [(o.came_in_s, o.ended_s) for o in outcomes if o.came_in_s is not None]
    speaking = [sum(begin_s <= at < end_s for begin_s, end_s in came) for at in times]
    axes.fill_between(times, speaking, alpha=0.3, label="sessions")
    axes.plot(
        times,
        [sum(o.ended_s <= at for o in outcomes if o.status == "succeeded") for at in times],
        label="succeeded so far",
    )
    axes.set_ylabel("sessions")
    axes.legend(loc="upper left", fontsize="small")


def _plot_system(queue: Any, cores: Any, samples: Sequence[Sample]) -> None:
    times = [sample.at_s for sample in samples]
    queue.plot(times, [sample.queue.get("queued", math.nan) for sample in samples], label="queued")
    processing = [sample.queue.get("processing", math.nan) for sample in samples]
    queue.plot(times, processing, label="with workers")
    queue.set_ylabel("jobs")
    queue.legend(loc="upper right", fontsize="small")
    for kind in sorted({kind for sample in samples for kind in sample.cpu_s}):
        used = [
            max(0.0, now.cpu_s.get(kind, 0.0) - before.cpu_s.get(kind, 0.0))
            / max(now.at_s - before.at_s, 1e-3)
            for before, now in itertools.pairwise(samples)
        ]
        cores.plot(times[1:], used, label=kind)
    cores.set_ylabel("cores")
    cores.legend(loc="upper right", fontsize="small")
