"""The rows of a data frame as a table of literals in a statement."""

from __future__ import annotations

import json
import math
import numbers
from datetime import date, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_plugin.scoring.names import ScriptError, quoted
from mlflow_bucketfs_plugin.scoring.sql_types import parse_sql_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from mlflow_bucketfs_plugin.scoring.script import ScriptColumn

MOST_ROWS = 10_000
MOST_CHARACTERS = 1_000_000
"""Limits of our own: how long a statement may be, Exasol's documentation does not say."""

# a float holds each whole number up to here
_EXACT_FLOAT = 2**53
_EXACT = Context(prec=400)  # as many digits as a float can have


def literal_table(frame: pd.DataFrame, columns: Sequence[ScriptColumn]) -> str:
    """Write the rows of a frame as a table whose columns have the types of a script's parameters.

    Args:
        frame: has a column for each parameter, by name; upper and lower case may differ. Further
            columns are left out.
        columns: the script's parameters.

    Returns:
        A query for the ``FROM`` of a statement, with the columns in the parameters' order and
        with their names.

    Raises:
        ScriptError: a column is missing, a value does not go into its column, or there are more
            rows than a statement should hold.
    """
    if frame.empty:
        raise ScriptError("There are no rows to score.")
    if len(frame) > MOST_ROWS:
        raise _too_much(f"{len(frame):,} rows", f"{MOST_ROWS:,} rows")
    values = [
        [_literal(value, column, row) for row, value in enumerate(frame[name], start=1)]
        for name, column in zip(_named(frame, columns), columns, strict=True)
    ]
    rows = ",\n".join(f"({', '.join(row)})" for row in zip(*values, strict=True))
    if len(rows) > MOST_CHARACTERS:
        raise _too_much(f"{len(rows):,} characters", f"{MOST_CHARACTERS:,} characters")
    names = [f"C{number}" for number in range(1, len(columns) + 1)]
    typed = ", ".join(
        f"CAST({name} AS {column.sql_type}) AS {quoted(column.name)}"
        for name, column in zip(names, columns, strict=True)
    )
    table = f"(VALUES\n{rows}\n) AS ROWS_TO_SCORE({', '.join(names)})"
    return f"(SELECT {typed} FROM {table})"  # noqa: S608 -- of literals and checked names


def _too_much(found: str, limit: str) -> ScriptError:
    return ScriptError(
        f"There are {found} to score, and a statement may have {limit}. Load them into a table, "
        'and name it instead: predict(name, {"table": "SCHEMA.TABLE"}), or a file with '
        '[{"table": "SCHEMA.TABLE"}].'
    )


def _named(frame: pd.DataFrame, columns: Sequence[ScriptColumn]) -> list[Any]:
    exact = {str(label): label for label in frame.columns}
    folded: dict[str, list[Any]] = {}
    for name, label in exact.items():
        folded.setdefault(name.upper(), []).append(label)
    found, missing = [], []
    for column in columns:
        similar = folded.get(column.name.upper(), [])
        if column.name in exact:
            found.append(exact[column.name])
        elif len(similar) == 1:
            found.append(similar[0])
        else:
            missing.append(column.name)
    if missing:
        raise ScriptError(
            f"The rows lack {', '.join(missing)}; they have {', '.join(exact)}. The script takes "
            f"{', '.join(column.name for column in columns)}."
        )
    return found


def _literal(value: Any, column: ScriptColumn, row: int) -> str:
    value = value.item() if hasattr(value, "item") else value  # a scalar of NumPy
    if _is_missing(value):
        return "NULL"
    sql = parse_sql_type(column.sql_type, column.name)
    literal = _decimal(value, sql.scale) if sql.kind == "DECIMAL" else _WRITERS[sql.kind](value)
    if literal is None:
        raise ScriptError(
            f"Column {column.name}, row {row}: {value!r} does not go into {column.sql_type}."
            + _advice(value)
        )
    return literal


def _advice(value: object) -> str:
    if isinstance(value, float) and abs(value) >= _EXACT_FLOAT:
        return " Numbers beside a missing one are read as floats: write large ids as text."
    return ""


def _is_missing(value: Any) -> bool:
    # NaN, NaT and pandas' NA are not equal to themselves, or do not know whether they are
    if value is None:
        return True
    if isinstance(value, (str, list, tuple, dict)):
        return False
    is_same = value == value  # noqa: PLR0124
    return is_same is not True


def _boolean(value: object) -> str | None:
    if isinstance(value, bool) or value in (0, 1):
        return "TRUE" if value else "FALSE"
    return None


def _decimal(value: object, scale: int) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and abs(value) >= _EXACT_FLOAT:
        return None
    try:
        number = Decimal(str(value).strip())
        fits = number == number.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    except InvalidOperation:  # no number, infinity, or more digits than any column has
        return None
    return f"'{number:f}'" if fits else None  # as text, which no reader rounds


def _double(value: Any) -> str | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return f"{number!r}" if math.isfinite(number) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, (date, datetime)):
        value = value.isoformat()
    text = str(value)
    return None if "\0" in text else "'" + text.replace("'", "''") + "'"


def _timestamp(value: object) -> str | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime) and value.tzinfo is None:
        return f"TO_TIMESTAMP('{value:%Y-%m-%d %H:%M:%S.%f}', 'YYYY-MM-DD HH24:MI:SS.FF6')"
    return None


def _date(value: object) -> str | None:
    if isinstance(value, numbers.Number):
        return None
    try:
        return f"TO_DATE('{date.fromisoformat(str(value)[:10]):%Y-%m-%d}', 'YYYY-MM-DD')"
    except ValueError:
        return None


_WRITERS: dict[str, Callable[[object], str | None]] = {
    "BOOLEAN": _boolean,
    "DOUBLE": _double,
    "VARCHAR": _text,
    "CHAR": _text,
    "TIMESTAMP": _timestamp,
    "DATE": _date,
}
