"""Core: warnings about fields of a start that have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.session.events import SessionWarning, Start
from wire.languages import primary_language
from wire.messages import Abilities

UNKNOWN = Abilities()
"""Abilities of a model whose workers are of an earlier release, or unavailable."""


def warnings_of(start: Start) -> tuple[SessionWarning, ...]:
    """Return a warning for each field that has no effect, and for each option that the session's
    model ignores."""
    found = [("field_ignored", f"{n}: this field has no effect") for n in start.ignored_fields]
    if start.abilities != UNKNOWN:
        found += _ignored_options(start)
    return tuple(SessionWarning(code=code, message=message) for code, message in found)


def _ignored_options(start: Start) -> Iterator[tuple[str, str]]:
    abilities = start.abilities
    model, workers = f"model {start.model}", f"workers of model {start.model}"
    code, known = primary_language(start.language), abilities.languages
    if code and code != "auto":
        if known and code not in known:
            yield "language_unknown", f"{model} does not know {code}, but {', '.join(known)}"
        elif not abilities.takes_language and known != (code,):
            yield "language_ignored", f"{model} takes no language, it is ignored"
    if start.hotwords and abilities.hotwords == "none":
        yield "hotwords_ignored", f"{model} takes no hotwords, they are ignored"
    if start.speakers and not abilities.speakers:
        yield "speakers_unknown", f"{workers} have no speaker model"
    if start.punctuation and not abilities.punctuation:
        yield "punctuation_missing", f"{workers} have no punctuation model"
    if start.itn and not abilities.itn:
        yield "itn_ignored", f"{workers} leave numbers as they are spoken"
