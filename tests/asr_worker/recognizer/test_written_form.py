"""What is added to a model's words, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from asr_worker.metrics import PUNCTUATION_FAILURES
from asr_worker.recognizer.protocol import RECOGNITION_FAILED, Recognition, Utterance
from asr_worker.recognizer.punctuation import Punctuator
from asr_worker.recognizer.written_form import WrittenForm
from wire.messages import Abilities, Failure

FAILED = Recognition(text=None, failure=Failure(code=RECOGNITION_FAILED, message="no"))


class Spoken:
    """A recogniser whose texts are the utterances' audio."""

    model, device = "spoken", "none"

    def __init__(self, **abilities: Any) -> None:
        self.abilities = Abilities(**abilities)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        return [
            Recognition(text=utterance.pcm.decode()) if utterance.pcm else FAILED
            for utterance in utterances
        ]


class Marking:
    """A punctuator that ends texts with a stop, and fails on "fail"."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], list[str]]] = []

    def punctuate(self, texts: list[str], contexts: list[str]) -> list[str]:
        self.batches.append((texts, contexts))
        if "fail" in texts:
            raise ValueError("no vocabulary")
        return [f"{text}." for text in texts]


def written(
    *utterances: Utterance, marking: Marking | None = None, **abilities: bool
) -> list[str | None]:
    form = WrittenForm(Spoken(**abilities), cast(Any, marking))
    return [recognition.text for recognition in form.recognize(utterances)]


def said(text: str, **wishes: Any) -> Utterance:
    return Utterance(pcm=text.encode(), **wishes)


def test_a_batch_is_punctuated_at_once_with_its_contexts() -> None:
    marking = Marking()
    texts = written(said("one", context="Zero."), said(""), said("two"), marking=marking)
    assert texts == ["one.", None, "two."]
    assert marking.batches == [(["one", "two"], ["Zero.", ""])]


@pytest.mark.parametrize("count", [1, 3])
def test_texts_are_given_to_no_other_utterance(count: int) -> None:
    class Miscounting(Spoken):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            return [Recognition(text="one")] * count

    with pytest.raises(ValueError, match="zip"):
        WrittenForm(Miscounting(), None).recognize([said("one"), said("two")])


@pytest.mark.parametrize(("wish", "text"), [(None, "one."), (True, "one."), (False, "one")])
def test_a_session_may_refuse_punctuation(wish: bool | None, text: str) -> None:
    assert written(said("one", punctuation=wish), marking=Marking()) == [text]


def test_a_models_own_punctuation_stays_unless_it_is_refused() -> None:
    marking = Marking()
    own = "Yes, 3.5 is it."
    texts = written(
        said(own),
        said("好，3.5。", punctuation=False),
        said(own, punctuation=False),
        marking=marking,
    )
    assert texts == [own, "好3.5", "Yes 3.5 is it"]
    assert marking.batches == []


def test_a_text_without_marks_of_a_model_that_has_them_is_punctuated() -> None:
    assert written(said("one", itn=False), marking=Marking(), punctuation=True) == ["one."]


def test_numbers_are_written_in_digits_for_sessions_that_ask_for_it() -> None:
    texts = written(said("twenty five"), said("twenty five", itn=True), said("二十五", itn=True))
    assert texts == ["twenty five", "25", "25"]


def test_a_models_own_digits_are_left_to_it() -> None:
    assert written(said("twenty five", itn=True), itn=True) == ["twenty five"]


def test_a_text_whose_punctuation_fails_keeps_its_words_and_the_others_get_marks() -> None:
    before = PUNCTUATION_FAILURES._value.get()
    texts = written(said("fail"), said("one"), said("Done."), marking=Marking())
    assert texts == ["fail", "one.", "Done."]
    assert PUNCTUATION_FAILURES._value.get() == before + 1


def test_abilities_are_the_models_with_what_is_added() -> None:
    assert WrittenForm(Spoken(tags=True), None).abilities == Abilities(tags=True, itn=True)
    with_marks = WrittenForm(Spoken(), cast(Punctuator, Marking())).abilities
    assert with_marks == Abilities(punctuation=True, itn=True)
