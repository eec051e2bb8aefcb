"""Core: the models that the workers serve, and the choice of one for a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.session import events as e
from wire.languages import primary_language
from wire.messages import ServedModel

KNOWN_MODEL_S = 60.0
"""A model that the broker no longer reports is known for this long: after a restart of the broker
its workers have to register again."""


ANY_MODEL = ServedModel(name="", model="", workers=0)
"""Any worker may recognise the session: the broker reports no names."""


class ServedModels:
    """Feed it with ``note``.

    ``default`` is the served name for sessions that ask for no model; ``""``: the first in
    alphabetical order. ``expected`` are names that are known before a worker serves them.
    """

    def __init__(self, default: str, expected: Iterable[str] = ()) -> None:
        self._default = default
        self._expected = {name for name in (default, *expected) if name}
        self._known: dict[str, tuple[ServedModel, float]] = {}
        """By served name, and when the broker last reported it."""
        self._default_due_s: float | None = None
        """From then on the default is missing, unless a worker serves it; infinite once that was
        reported."""

    def note(self, served: Iterable[ServedModel], now_s: float) -> bool:
        """Take the broker's report. Returns True, once, if no worker has served the default for
        ``KNOWN_MODEL_S`` while others were known."""
        self._known |= {model.name: (model, now_s) for model in served}
        for name, (_, seen_s) in list(self._known.items()):
            if now_s - seen_s > KNOWN_MODEL_S:
                del self._known[name]
        is_served = not self._known or self._default in ("", *self._known)
        if is_served or self._default_due_s is None:
            self._default_due_s = now_s + KNOWN_MODEL_S
        is_missing = now_s > self._default_due_s
        if is_missing:
            self._default_due_s = float("inf")
        return is_missing

    @property
    def names(self) -> Sequence[str]:
        """The served names. Before any worker is known, the expected ones."""
        return sorted(self._known or self._expected)

    @property
    def all(self) -> Sequence[ServedModel]:
        """Known models in alphabetical order, with those that have no workers."""
        names = sorted(self._known.keys() | self._expected)
        return [self.get_or_unserved(name) for name in names]

    def get(self, name: str) -> ServedModel | None:
        """The model of this name; None: unknown."""
        if name in self._known:
            return self._known[name][0]
        return _unserved(name) if name in self._expected else None

    def get_or_unserved(self, name: str) -> ServedModel:
        """The model of this name; if it is unknown, one without workers, whose sessions wait."""
        return self.get(name) or _unserved(name)

    def choose(self, start: e.Start) -> ServedModel | e.Problem:
        """The model for a session: the one that it names; else, if it names none or an optional
        one, the most specialised one that is known to recognise its language; else the default."""
        named = self.get(start.model) if start.model else None
        if named is not None:
            return named
        if start.model and not start.model_optional:
            served = ", ".join(self.names) or "none"
            message = f"no model is called {start.model!r}; served models: {served}"
            return e.Problem(code="unknown_model", message=message)
        default = self.default
        code = primary_language(start.language)
        able = [model for model in self.all if code in model.abilities.languages]
        if not able:
            return default
        return min(able, key=lambda m: (m.name != code, len(m.abilities.languages), m != default))

    @property
    def default(self) -> ServedModel:
        """The model of a session that asks for none. Its name is ``""``, which any worker may
        serve, if none is known."""
        if self._default:
            return self.get_or_unserved(self._default)
        return next(iter(self.all), ANY_MODEL)


def _unserved(name: str) -> ServedModel:
    return ServedModel(name=name, model="", workers=0)
