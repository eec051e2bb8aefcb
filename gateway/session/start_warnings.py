"""Core: warnings about fields of a start that have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.session.events import SessionWarning, Start
from wire.languages import primary_language
from wire.messages import Abilities

UNKNOWN = Abilities()
"""Abilities of a model whose workers are of an earlier release, or unavailable."""


def warnings_of(start: Start, abilities: Abilities) -> tuple[SessionWarning, ...]:
    """Return a warning for each field that has no effect, and for each option that a model
    with ``abilities`` ignores."""
    found = [*_fields(start)]
    if abilities != UNKNOWN:
        for check in (_language, _hotwords, _speakers, _written_form):
            found += check(start, abilities)
    return tuple(SessionWarning(code=code, message=message) for code, message in found)


def _fields(start: Start) -> Iterator[tuple[str, str]]:
    for name in start.ignored_fields:
        yield "field_ignored", f"{name}: this field has no effect"


def _language(start: Start, abilities: Abilities) -> Iterator[tuple[str, str]]:
    code, known = primary_language(start.language), abilities.languages
    if not code or code == "auto":
        return
    if known and code not in known:
        languages = ", ".join(known)
        yield "language_unknown", f"model {start.model} does not know {code}, but {languages}"
    elif not abilities.takes_language and known != (code,):
        yield "language_ignored", f"model {start.model} takes no language, it is ignored"


def _hotwords(start: Start, abilities: Abilities) -> Iterator[tuple[str, str]]:
    if start.hotwords and abilities.hotwords == "none":
        yield "hotwords_ignored", f"model {start.model} takes no hotwords, they are ignored"


def _speakers(start: Start, abilities: Abilities) -> Iterator[tuple[str, str]]:
    if start.speakers and not abilities.speakers:
        yield "speakers_unknown", f"workers of model {start.model} have no speaker model"


def _written_form(start: Start, abilities: Abilities) -> Iterator[tuple[str, str]]:
    if start.punctuation and not abilities.punctuation:
        yield "punctuation_missing", f"workers of model {start.model} have no punctuation model"
    if start.itn and not abilities.itn:
        yield "itn_ignored", f"workers of model {start.model} leave numbers as they are spoken"
