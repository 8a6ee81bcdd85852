"""Convert data frames to SQL, and query results to data frames, for ``predict``."""

from __future__ import annotations

import json
import math
import numbers
from datetime import date, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.names import (
    parse_object_name,
    quoted,
    sql_columns,
    sql_object_name,
)
from mlflow_bucketfs_plugin.scoring.sql_types import parse_sql_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_bucketfs_plugin.scoring.script import ScriptColumn

MOST_ROWS = 10_000
MOST_CHARACTERS = 1_000_000
"""Our own limits: Exasol's documentation states no limit for the length of a statement."""

_MOST_IN_INT64 = 2**63 - 1
# up to here, a float represents each whole number exactly
_EXACT_FLOAT = 2**53
_EXACT = Context(prec=400)  # as many digits as a float can have


def select_source(inputs: Any, columns: Sequence[ScriptColumn]) -> tuple[str, list[str]]:
    """Return the source and the arguments of the SELECT that scores the inputs of ``predict``.

    Args:
        inputs: a data frame, or records that make one; ``{"table": …}`` or ``{"query": …}``, also
            as a frame with one row.
        columns: the script's parameters.

    Returns:
        The table expression after ``FROM``, and the script's arguments.

    Raises:
        ScriptError: the inputs are of another type, or see :func:`literal_table`.
    """
    names = [column.name for column in columns]
    if isinstance(inputs, pd.DataFrame) and inputs.shape == (1, 1):
        label = inputs.columns[0]
        if label in {"table", "query"} and label not in names:
            inputs = {label: inputs.iloc[0, 0]}
    if isinstance(inputs, dict) and set(inputs) == {"table"}:
        table = parse_object_name(str(inputs["table"]), "table")
        return sql_object_name(table), sql_columns(names)
    if isinstance(inputs, dict) and set(inputs) == {"query"}:
        query = str(inputs["query"]).strip().rstrip(";")
        return f"(\n{query}\n)", sql_columns(names)
    if isinstance(inputs, (dict, list)):
        inputs = pd.DataFrame(inputs)
    if not isinstance(inputs, pd.DataFrame):
        raise ScriptError(
            'predict takes a data frame, {"table": "SCHEMA.TABLE"} or {"query": "SELECT …"}, not '
            f"{type(inputs).__name__}."
        )
    return literal_table(inputs, columns), [quoted(name) for name in names]


def result_frame(
    types: Mapping[str, Mapping[str, Any]], rows: Sequence[tuple[Any, ...]]
) -> pd.DataFrame:
    """Convert a query's result to a data frame with Python's types.

    Args:
        types: the columns' types by name, as pyexasol describes them.
        rows: the rows as pyexasol returns them, numbers as text.

    Returns:
        A frame in which a DECIMAL without decimals is an int, or text beyond 64 bits.
    """
    frame = pd.DataFrame(rows, columns=list(types), dtype=object)
    for position, described in enumerate(types.values()):
        frame.isetitem(position, _converted(frame.iloc[:, position], described))
    return frame


def _converted(column: pd.Series[Any], described: Mapping[str, Any]) -> pd.Series[Any]:
    if described["type"] == "DECIMAL" and not described.get("scale"):
        whole = [None if value is None else int(value) for value in column]
        if any(value is not None and abs(value) > _MOST_IN_INT64 for value in whole):
            return pd.Series([None if v is None else str(v) for v in whole], dtype=object)
        return pd.Series(whole, dtype=object if None in whole else "int64")
    if described["type"] in {"DOUBLE", "DECIMAL"}:
        return pd.Series([None if v is None else float(v) for v in column], dtype="float64")
    return column


def literal_table(frame: pd.DataFrame, columns: Sequence[ScriptColumn]) -> str:
    """Return a data frame's rows as a SQL table of literals, for a script's parameters.

    Args:
        frame: a data frame with a column for each parameter; names may differ in case. Other
            columns are ignored.
        columns: the script's parameters.

    Returns:
        A query for the ``FROM`` of a statement. Its columns have the names, types and order of
        the parameters.

    Raises:
        ScriptError: a column is missing, a value does not fit its parameter's type, or the
            statement would be too long.
    """
    if frame.empty:
        raise ScriptError("There are no rows to score.")
    if len(frame) > MOST_ROWS:
        raise _limit_error(f"{len(frame):,} rows", f"{MOST_ROWS:,} rows")
    values = [
        [_literal(value, column, row) for row, value in enumerate(frame[name], start=1)]
        for name, column in zip(_matching_labels(frame, columns), columns, strict=True)
    ]
    rows = ",\n".join(f"({', '.join(row)})" for row in zip(*values, strict=True))
    if len(rows) > MOST_CHARACTERS:
        raise _limit_error(f"{len(rows):,} characters", f"{MOST_CHARACTERS:,} characters")
    names = [f"C{number}" for number in range(1, len(columns) + 1)]
    typed = ", ".join(
        f"CAST({name} AS {column.sql_type}) AS {quoted(column.name)}"
        for name, column in zip(names, columns, strict=True)
    )
    table = f"(VALUES\n{rows}\n) AS ROWS_TO_SCORE({', '.join(names)})"
    return f"(SELECT {typed} FROM {table})"  # noqa: S608 -- of literals and checked names


def _limit_error(found: str, limit: str) -> ScriptError:
    return ScriptError(
        f"There are {found} to score, and a statement may have {limit}. Load them into a table, "
        'and name it instead: predict(name, {"table": "SCHEMA.TABLE"}), or a file with '
        '[{"table": "SCHEMA.TABLE"}].'
    )


def _matching_labels(frame: pd.DataFrame, columns: Sequence[ScriptColumn]) -> list[Any]:
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
            f"The rows have no column {', '.join(missing)}, but {', '.join(exact)}. The script "
            f"takes {', '.join(column.name for column in columns)}."
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
            f"Column {column.name}, row {row}: {value!r} does not fit into {column.sql_type}."
            + _advice(value)
        )
    return literal


def _advice(value: object) -> str:
    if isinstance(value, float) and abs(value) >= _EXACT_FLOAT:
        return " pandas reads a column with a missing number as floats: write large ids as text."
    return ""


def _is_missing(value: Any) -> bool:
    # NaN and NaT are not equal to themselves; for pandas' NA, the result is NA
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
    return f"'{number:f}'" if fits else None  # as text, which is not rounded


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
