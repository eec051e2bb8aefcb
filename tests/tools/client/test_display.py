"""What is shown while sources are transcribed."""

from __future__ import annotations

import io

from rich.console import Console

from asr_client.display import Bars, Result, Spoken, summary
from asr_client.events import PartialResult, Problem, Segment
from asr_client.sources import Source


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=100, highlight=False), file


def segment(text: str, speaker: int | None = None) -> Segment:
    return Segment(0, 0, 500, 1500, text, speaker=speaker)


PROBLEM = Problem("chunk_failed", "three attempts", 0, 0, None)
SOURCES = [Source("a.wav", 100), Source("b.wav", 300)]


def test_spoken_text_remains_with_its_times_and_speaker() -> None:
    shown, file = console()
    with Spoken(shown) as display:
        display.event(SOURCES[0], PartialResult(0, "one tw"))
        display.event(SOURCES[0], segment("one [two]", 2))
        display.event(SOURCES[0], segment(""))
        display.event(SOURCES[0], PROBLEM)
    assert "0.50 to    1.50 s  Speaker 2: one [two]" in file.getvalue()
    assert file.getvalue().count("0.50 to") == 1, "a line for an utterance without words"
    assert "error: chunk_failed: three attempts" in file.getvalue()


def test_bars_show_each_source_and_all_of_them() -> None:
    shown, file = console(is_terminal=True)
    with Bars(shown, SOURCES, quiet=False) as display:
        for source in SOURCES:
            display.begin(source)
        display.recognised(SOURCES[0], 50)
        display.recognised(SOURCES[1], 150)
        display.recognised(SOURCES[1], 100)  # A later result of an earlier place: no step back.
        display._progress.refresh()
        fifty = file.getvalue()
        display.end(SOURCES[0])
        display.end(SOURCES[1])
        display._progress.refresh()
    assert all(name in fifty for name in ("a.wav", "b.wav", "all 2", " 50%"))
    assert "100%" in file.getvalue()


def test_sources_of_unknown_size_are_counted() -> None:
    shown, file = console(is_terminal=True)
    sources = [Source("-"), Source("b.wav", 300)]
    with Bars(shown, sources, quiet=False) as display:
        for source in sources:
            display.begin(source)
            display.recognised(source, 7)
            display.end(source)
        display._progress.refresh()
    assert "all 2" in file.getvalue() and "100%" in file.getvalue()


def test_without_a_terminal_bars_print_errors_only() -> None:
    shown, file = console()
    with Bars(shown, SOURCES, quiet=False) as display:
        display.begin(SOURCES[0])
        display.event(SOURCES[0], segment("one"))
        display.event(SOURCES[0], PROBLEM)
        display.end(SOURCES[0])
    assert file.getvalue() == "error: a.wav: chunk_failed: three attempts\n"


def test_the_summary_is_a_line_of_one_source_and_a_table_of_several() -> None:
    shown, file = console()
    done = Result(
        source=SOURCES[0], status="complete", duration_s=60, took_s=2, session_id="s", stored=True
    )
    shown.print(summary([done]))
    assert file.getvalue() == "60.00 s of audio in 2.00 s, stored as s\n"
    shown.print(summary([done, Result(source=SOURCES[1], status="failed", error="why")]))
    _, _, first, second = file.getvalue().splitlines()
    assert first.split() == ["a.wav", "60.0", "s", "2.0", "s", "30.0×", "complete"]
    assert second.split() == ["b.wav", "0.0", "s", "0.0", "s", "failed"]
