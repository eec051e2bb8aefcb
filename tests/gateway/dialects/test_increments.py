"""Increments: each word is sent once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.increments import Increments
from gateway.session.transcript import join_texts

TEXTS = st.text(alphabet="一二三ab ，", max_size=12)


def test_a_word_is_sent_when_two_partial_results_agree() -> None:
    texts = Increments(revisable=False)
    assert texts.partial("二五") == ""
    assert texts.partial("二五一") == "二五"
    assert texts.partial("二五一九") == "一"
    assert texts.final("二五一九八") == "九八"


def test_english_words_keep_their_spaces() -> None:
    texts = Increments(revisable=True)
    assert [texts.partial("nine"), texts.partial("nine two"), texts.final("nine two one")] == [
        "nine",
        " two",
        " one",
    ]
    assert texts.partial("five") == " five"
    assert texts.final("five") == ""


def test_sent_words_are_completed_by_the_final_result() -> None:
    texts = Increments(revisable=False)
    texts.partial("三五")
    assert texts.partial("三五") == "三五"
    assert texts.final("三九一") == "一"


def test_a_revised_partial_waits_for_the_sentence_that_replaces_it() -> None:
    texts = Increments(revisable=True)
    assert texts.partial("三五") == "三五"
    assert texts.partial("三九一") == ""
    assert texts.sentence("三九一") == "三九一"
    assert texts.sentence("two") == " two"


@given(st.lists(st.tuples(st.lists(TEXTS, max_size=4), TEXTS), max_size=4))
def test_sentences_join_like_the_transcript(segments: list[tuple[list[str], str]]) -> None:
    texts = Increments(revisable=True)
    shown = ""
    for partials, final in segments:
        for partial in partials:
            texts.partial(partial)
        shown += texts.sentence(final)
    assert shown == join_texts(final for _, final in segments)


@given(st.lists(st.tuples(st.integers(0, 12), TEXTS), max_size=4))
def test_growing_partials_append_to_the_transcript(segments: list[tuple[int, str]]) -> None:
    texts = Increments(revisable=False)
    shown = ""
    for step, final in segments:
        for end in range(0, len(final), step + 1):
            # Cut between words: a half word may be taken for another.
            if final[end - 1 : end + 1].isascii() and " " not in final[end - 1 : end + 1]:
                continue
            shown += texts.partial(final[:end])
        shown += texts.final(final)
    assert shown == join_texts(final for _, final in segments)
