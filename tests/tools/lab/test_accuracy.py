from __future__ import annotations

import json
import wave
from pathlib import Path

from tools.lab import accuracy
from tools.lab.accuracy import Clip, measure, read, row, units


def clip(name: str, words: str | None, language: str = "en", duration_s: int = 1) -> Clip:
    return Clip(name=name, language=language, words=words, pcm=bytes(32_000 * duration_s))


def test_recordings_are_read_with_their_words_shortest_first(tmp_path: Path) -> None:
    refs = {"long": {"lang": "zh", "ref": "你好"}, "short": {"lang": "other", "ref": None}}
    for name, seconds in (("long", 2), ("short", 1)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(bytes(32_000 * seconds))
    (tmp_path / "refs.json").write_text(json.dumps(refs), "utf-8")
    assert read(tmp_path) == [
        clip("short", None, "other"),
        clip("long", "你好", "zh", duration_s=2),
    ]


def test_english_is_compared_by_words_others_by_characters() -> None:
    assert units("en", "Mr. Quilter's 10 metres.") == units("en", "mister quilter is ten meters")
    assert units("zh", "你好， 世界。") == list("你好世界")


def test_errors_are_counted_by_language_and_texts_of_noise_are_kept() -> None:
    clips = [
        clip("a", "one small dog"),
        clip("b", "the air"),
        clip("c", "你好", "zh"),
        clip("d", None, "other"),
        clip("e", None, "other"),
    ]
    heard = {"a": "One dog", "b": "the air", "c": "你们好", "d": "you", "e": ""}
    batches = []

    def texts(part: object) -> list[str]:
        assert isinstance(part, list)
        batches.append(len(part))
        return [heard[each.name] for each in part]

    found = measure(clips, texts, 2)
    assert batches == [2, 2, 1]
    assert found.errors == {"en": (1, 5), "zh": (1, 2)}
    assert found.inventions == {"d": "you"}
    assert found.audio_s == 5.0
    name, errors, inventions, speed = row("x", found)
    assert (name, errors, inventions) == ("x", "en 20.0 % of 5, zh 50.0 % of 2", "d: 'you'")
    assert speed.endswith(" ×")


def test_funasr_recognises_one_by_one() -> None:
    class Auto:
        def generate(self, input: list[object], **_options: object) -> list[dict[str, str]]:
            assert len(input) == 1
            return [{"text": "hello"}]

    assert accuracy.funasr_texts(Auto(), None)([clip("a", "x"), clip("b", "y")]) == [
        "hello",
        "hello",
    ]
