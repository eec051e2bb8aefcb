"""Warnings about unknown query parameters and fields, and types of parameters that several routes
use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import AfterValidator, BeforeValidator

from gateway.dialects.fields import shown_names
from gateway.dialects.openai import warnings_header
from gateway.session.events import SessionWarning

_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d\Z)")


def _warnings(request: Request, response: Response) -> list[SessionWarning]:
    route: Any = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    warnings = [
        SessionWarning(
            code="unknown_parameter",
            message=f"{name!r} has no effect; known: {', '.join(known) or 'none'}",
        )
        for name in shown_names(unknown)
    ]
    response.headers.update(warnings_header(warnings))
    return warnings


WARNS_OF_UNKNOWN = Depends(_warnings)
"""For the ``dependencies`` of a route: ``X-Warnings`` about query parameters that the route does
not have."""
Warnings = Annotated[list[SessionWarning], WARNS_OF_UNKNOWN]
"""The same, for routes that repeat the warnings in their body."""


def ignored_fields(names: Iterable[str]) -> list[SessionWarning]:
    """Return warnings about fields of a body that have no effect."""
    return [
        SessionWarning(code="field_ignored", message=f"{name}: this field has no effect")
        for name in shown_names(dict.fromkeys(names))
    ]


def _restored(value: object) -> object:
    # An unescaped + in a query is a space.
    return _LOST_PLUS.sub("+", value) if isinstance(value, str) else value


Time = Annotated[
    datetime,
    BeforeValidator(_restored),
    AfterValidator(lambda time: time if time.tzinfo is not None else time.replace(tzinfo=UTC)),
]
"""A time in ISO 8601; without an offset it is UTC."""
