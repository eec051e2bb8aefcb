"""Commands and texts of the synthesisers, which tests do not need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.training.demo_model.synthesis import Voice, _command, _script


@pytest.mark.parametrize(
    "voice, language, text",
    [
        (Voice("espeak", "en-us"), "en", "one two"),
        (Voice("espeak", "cmn+f2"), "zh", "一二"),
        (Voice("espeak", "de+f2"), "en", "wann, tuh"),
        (Voice("kokoro", "jf_alpha:1.0"), "en", "wˈʌn tˈu."),
    ],
)
def test_digits_are_written_for_each_engine(voice: Voice, language: str, text: str) -> None:
    assert _script(voice, "12", "zh" if language == "zh" else "en") == text


def test_accents_are_drawn_from_the_voice_and_the_digits() -> None:
    voice = Voice("accented", "en-us")
    assert _script(voice, "0123456789", "en") == _script(voice, "0123456789", "en")
    assert len({_script(voice, digits, "en").split()[0] for digits in ("11", "12", "13", "14")}) > 1


def test_the_pace_is_given_to_each_program() -> None:
    wav = Path("speech.wav")
    assert "-s" in (command := _command(Voice("espeak", "en-us", 85, 50), "one", wav))
    assert command[command.index("-s") + 1] == "85"
    assert "duration_stretch=2.000" in _command(Voice("flite", "slt", 85, 170), "one", wav)
    assert "2.000" in _command(Voice("festival", "ked_diphone", 85), "one", wav)[2]
