from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_worker.recognizer.inverse_normalization import written


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ("我今年三十五岁，住在二零二六号。", "我今年35岁，住在2026号。"),
        ("百分之二十", "20%"),
        ("I am twenty five, and it costs three hundred dollars.", "I am 25, and it costs $300."),
        ("nine two five one", "9251"),
        ("我们一起去", "我们一起去"),
        ("Ça va?", "Ça va?"),
        ("", ""),
        ('he said "twenty" to me', 'he said "20" to me'),
        ("二十\\五十", "20\\50"),
        ("twenty. ", "20. "),
    ],
)
def test_numbers_are_written_in_digits(spoken: str, expected: str) -> None:
    assert written(spoken) == expected


@given(st.text(alphabet="ab \"\\{}:二十.,\n\t'é", max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_text_is_written(text: str) -> None:
    assert isinstance(written(text), str)


def test_the_grammars_are_read_on_first_use() -> None:
    program = (
        "import sys, asr_worker.recognizer.inverse_normalization; sys.exit('wetext' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
