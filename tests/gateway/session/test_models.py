"""Which model a session gets."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.session import events as e
from gateway.session.models import ANY_MODEL, KNOWN_MODEL_S, ServedModels
from tests.gateway.session.test_registry import START
from wire.messages import Abilities, ServedModel


def serving(name: str, *languages: str, workers: int = 1) -> ServedModel:
    abilities = Abilities(languages=languages)
    return ServedModel(name=name, model=f"{name}-model", workers=workers, abilities=abilities)


MANDARIN = serving("mandarin", "zh")
WHISPER = serving("whisper", "en", "zh", "fr", "de")
EN = serving("en")
SERVED = (EN, MANDARIN, WHISPER)


def models(default: str = "whisper") -> ServedModels:
    subject = ServedModels(default)
    subject.note(SERVED, 0.0)
    return subject


@pytest.mark.parametrize(
    ("model", "language", "expected"),
    [
        ("", "", WHISPER),
        ("mandarin", "", MANDARIN),
        ("en", "zh", EN),  # The name counts before the language.
        ("", "zh", MANDARIN),  # It knows the fewest languages.
        ("", "zh-CN", MANDARIN),
        ("", "ZH_cn", MANDARIN),
        ("", "fr", WHISPER),
        ("", "ja", WHISPER),  # Nobody knows it: the default.
        ("", "auto", WHISPER),
    ],
)
def test_a_session_asks_by_name_or_by_language(
    model: str, language: str, expected: ServedModel
) -> None:
    assert models().choose(replace(START, model=model, language=language)) == expected


def test_a_model_that_is_called_as_the_language_comes_first() -> None:
    subject = models()
    zh = serving("zh", "zh", "en")
    subject.note((zh,), 0.0)
    assert subject.choose(replace(START, language="zh")) == zh


def test_an_unknown_name_is_answered_with_those_that_are_served() -> None:
    problem = models().choose(replace(START, model="nope"))
    assert isinstance(problem, e.Problem)
    assert problem.code == "unknown_model"
    assert problem.message == "no model is called 'nope'; served models: en, mandarin, whisper"


def test_an_optional_name_that_is_unknown_counts_as_none() -> None:
    optional = replace(START, model="nova-3", model_optional=True)
    assert models().choose(optional) == WHISPER
    assert models().choose(replace(optional, language="zh")) == MANDARIN
    assert models().choose(replace(optional, model="en")) == EN


def test_the_default_is_the_first_in_alphabetical_order() -> None:
    assert models("").choose(START) == EN
    assert ServedModels("").choose(START) == ANY_MODEL


def test_a_default_that_has_no_workers_yet_is_known() -> None:
    subject = models("later")
    assert subject.choose(START) == ServedModel(name="later", model="", workers=0)
    assert subject.get("later") is not None


def test_a_default_that_no_worker_serves_is_missing_after_a_while() -> None:
    assert not ServedModels("later").note(SERVED, 500.0)
    subject = ServedModels("later")
    assert not any(subject.note((), now_s) for now_s in (0.0, 500.0)), "no worker is known"
    assert not subject.note(SERVED, 500.0 + KNOWN_MODEL_S)
    assert subject.note(SERVED, 500.1 + KNOWN_MODEL_S)
    assert not subject.note(SERVED, 600.0), "only once"
    assert not subject.note((*SERVED, serving("later")), 700.0)
    assert not subject.note(SERVED, 700.0 + KNOWN_MODEL_S), "it is still known"
    assert subject.note(SERVED, 701.0 + 2 * KNOWN_MODEL_S)
    problem = models("later").choose(replace(START, model="nope"))
    assert isinstance(problem, e.Problem) and "models: en, mandarin, whisper" in problem.message


def test_names_that_are_expected_are_known_before_a_worker_serves_them() -> None:
    subject = ServedModels("", ["zh", "en"])
    assert subject.choose(replace(START, model="en")) == ServedModel(name="en", model="", workers=0)
    assert isinstance(subject.choose(replace(START, model="fr")), e.Problem)


def test_a_stored_session_keeps_a_model_that_is_gone() -> None:
    assert models().get_or_unserved("gone") == ServedModel(name="gone", model="", workers=0)
    assert models().get_or_unserved("mandarin") == MANDARIN


def test_a_model_is_known_for_a_while_after_its_last_report() -> None:
    subject = models()
    subject.note((EN,), KNOWN_MODEL_S)
    assert [model.name for model in subject.all] == ["en", "mandarin", "whisper"]
    subject.note((EN,), KNOWN_MODEL_S + 0.1)
    # The default is always known.
    assert [(model.name, model.workers) for model in subject.all] == [("en", 1), ("whisper", 0)]
