"""Each way in hears recordings of digits through a system with the bundled model."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.conftest import EmbeddedServices
from tests.integration.browser import executable
from tools.lab.accuracy import Clip, Measurement, measure
from tools.lab.digit_speech import expected_text, speak
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack
from tools.lab.product_accuracy import WAYS, keeps_promises, printing_errors

VOICE = "en_slt"


def clip(name: str, digits: str) -> Clip:
    pcm = speak(digits, VOICE, random.Random(1)).tobytes()
    return Clip(name=name, language="en", words=expected_text(digits, VOICE), pcm=pcm)


CLIPS = (clip("first", "4718"), clip("second", "2905"))


@pytest.fixture(scope="module")
def stack(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    url = database.create(embedded_services.database_url, "accuracy")
    with running_stack(url, embedded_services.redis_url) as running:
        running.start_all()
        yield running


@pytest.mark.parametrize("way", WAYS)
def test_recordings_one_after_the_other(
    way: str, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    if way == "page":
        executable()
    wrong = Clip(name="wrong", language="en", words="one", pcm=CLIPS[0].pcm)
    with WAYS[way](stack.http_url()) as hear:
        found = measure([*CLIPS, wrong], printing_errors(hear, f"{way}: "), 1)
    assert found.errors == {"en": (1, 3)}, "a number of several digits is one word"
    assert capsys.readouterr().out == f"{way}: wrong: 'one' became {CLIPS[0].words!r}\n"


def measured(errors: dict[str, tuple[int, int]], **inventions: str) -> Measurement:
    return Measurement(errors=errors, inventions=inventions, audio_s=1, processor_s=1)


def test_promises() -> None:
    assert keeps_promises(measured({"en": (5, 100), "zh": (20, 100)}))
    assert not keeps_promises(measured({"en": (6, 100), "zh": (0, 100)}))
    assert not keeps_promises(measured({"zh": (21, 100)}))
    assert not keeps_promises(measured({"en": (0, 100)}, beep="you"))
