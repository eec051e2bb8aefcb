"""Rows of ``asr_segments``: SQL and conversion, derived from ``wire.messages.Segment``.

Gateways read rows with this module, so it must not import the metrics of persistence.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import inspect

from wire.messages import Result, Segment


def _column(field: str) -> str:
    return "segment_index" if field == "seq" else field


_SQL_TYPES: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "bigint",
    inspect.FloatType: "double precision",
    inspect.BoolType: "boolean",
    inspect.StrType: "text",
    inspect.VarTupleType: "jsonb",
}


def _sql_type(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        (kind,) = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
    return _SQL_TYPES[type(kind)]


_KEY = ("session_id", "segment_index")
_declared = inspect.type_info(Segment)
assert isinstance(_declared, inspect.StructType)
COLUMNS: Final[dict[str, str]] = {
    "session_id": "text",
    "generation": "bigint",
    "text": "text",
    "error_code": "text",
    "error_message": "text",
    **{_column(field.name): _sql_type(field.type) for field in _declared.fields},
}
"""Names and types of the columns."""
UPSERT: Final = f"""
INSERT INTO asr_segments ({", ".join(COLUMNS)})
SELECT * FROM json_to_recordset(%s::json)
    AS row ({", ".join(f"{name} {sql_type}" for name, sql_type in COLUMNS.items())})
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY)},
    stored_at = now()
WHERE asr_segments.generation < excluded.generation
   OR (%s AND asr_segments.generation = excluded.generation)
"""
"""Parameters: a JSON array of rows, and whether a row replaces one of its own generation."""
SELECT: Final = """
SELECT json_agg(result)::text AS results
FROM (SELECT *, segment_index AS seq, false AS partial,
             CASE WHEN error_code IS NOT NULL
                  THEN json_build_object('code', error_code, 'message', coalesce(error_message, ''))
             END AS error
      FROM asr_segments WHERE session_id = %s ORDER BY segment_index LIMIT %s) AS result
"""
"""One JSON array of ``Result``; NULL without rows. Reading 650 results from it takes a quarter of
the processor time that reading their columns takes. Columns that the schema of the release before
lacks take the defaults of their fields."""
_decode = msgspec.json.Decoder(list[Result]).decode


def results_of(selected: str | None) -> list[Result]:
    """The results that the selected rows were written from."""
    return [] if selected is None else _decode(selected)
