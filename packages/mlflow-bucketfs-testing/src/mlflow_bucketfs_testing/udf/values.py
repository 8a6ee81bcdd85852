"""Conversion of rows: from the caller's values to the values in messages, and back to Python.

Rows are stored by column. `split_rows` selects the script's parameters and the groups;
`wire_columns` and `python_columns` convert by the SQL type of each column.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_bucketfs_testing.errors import UdfError, UdfValueError, is_about_udf
from mlflow_bucketfs_testing.udf.messages import Column, ColumnType

if TYPE_CHECKING:
    import pandas as pd

    from mlflow_bucketfs_testing.udf.messages import WireValue
    from mlflow_bucketfs_testing.udf.script import ScriptColumn, SqlType

__tracebackhide__ = is_about_udf

_INT_DIGITS = 18  # largest precision of a DECIMAL(p,0) that is returned as int, not Decimal
_NEVER_NULL = frozenset({bool, int, date, datetime})  # the fast path for most cells
_TRUE = frozenset({"true", "t", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "f", "0", "no", "n", "off"})
_EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)
_OTHER_TYPES = {
    "DOUBLE": ColumnType.DOUBLE,
    "BOOLEAN": ColumnType.BOOLEAN,
    "VARCHAR": ColumnType.STRING,
    "CHAR": ColumnType.STRING,
    "DATE": ColumnType.DATE,
    "TIMESTAMP": ColumnType.TIMESTAMP,
}

Input: TypeAlias = "Iterable[Sequence[Any] | Mapping[str, Any]] | pd.DataFrame"
"""The rows of a run, as the caller may pass them."""

Grouping: TypeAlias = str | Sequence[str] | Callable[[Sequence[Any]], Hashable]
"""The ``GROUP BY`` of a run: a column, several, or a function of the script's arguments."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a script.

    Attributes:
        count: number of rows.
        columns: the values of each parameter.
        keys: the key of each row's group; empty if the rows are not grouped.
    """

    count: int
    columns: list[Sequence[Any]]
    keys: list[Hashable]


def split_rows(rows: Input, parameters: Sequence[str], grouping: Grouping | None) -> Arguments:
    """Return the arguments of a script, by column, and the group key of each row.

    Args:
        rows: sequences with a value per parameter; or mappings, or a data frame, from which the
            parameters are taken by name. A data frame with labels that are not texts is read by
            position.
        parameters: names of the script's parameters.
        grouping: how the rows are grouped; None: all are one group.

    Raises:
        UdfValueError: a column is missing, or a row is not a sequence of values.
    """
    count, labels, columns = _by_column(rows, parameters)
    arguments = [columns[_position(name, labels)] for name in parameters]
    if grouping is None:
        return Arguments(count, arguments, [])
    if callable(grouping):
        tuples = zip(*arguments, strict=True) if arguments else [()] * count
        return Arguments(count, arguments, [grouping(row) for row in tuples])
    by = [grouping] if isinstance(grouping, str) else grouping
    parts = [map(_key, columns[_position(name, labels)]) for name in by]
    keys = list(parts[0] if isinstance(grouping, str) else zip(*parts, strict=True))
    return Arguments(count, arguments, keys)


def _by_column(
    rows: Input, parameters: Sequence[str]
) -> tuple[int, list[str], list[Sequence[Any]]]:
    """Return the number of rows, and names and values of their columns."""
    if hasattr(rows, "iloc"):  # a data frame, recognized without importing pandas
        frame: Any = rows
        columns = [frame.iloc[:, number].tolist() for number in range(len(frame.columns))]
        if all(isinstance(label, str) for label in frame.columns):
            return len(frame), list(frame.columns), columns
        _require_width(f"the data frame has {len(columns)} columns", len(columns), parameters)
        return len(frame), list(parameters), columns
    data: list[Any] = list(rows)
    if data and isinstance(data[0], Mapping):
        labels = list(data[0])
        for number, row in enumerate(data, 1):
            if not isinstance(row, Mapping) or row.keys() != data[0].keys():
                raise UdfValueError(f"row {number} has other columns than row 1: {labels}")
        return len(data), labels, [[row[label] for row in data] for label in labels]
    for number, row in enumerate(data, 1):
        if isinstance(row, str) or not hasattr(row, "__len__"):
            raise UdfValueError(
                f"row {number} is {row!r}; a row is a sequence with a value per parameter, such as "
                f"({row!r},)"
            )
        _require_width(f"row {number} has {len(row)} values", len(row), parameters)
    return len(data), list(parameters), list(zip(*data, strict=True)) or [()] * len(parameters)


def _require_width(what: str, width: int, parameters: Sequence[str]) -> None:
    if width != len(parameters):
        raise UdfValueError(
            f"{what}; the script has {len(parameters)} parameters: "
            f"{', '.join(parameters) or 'none'}"
        )


def _position(name: str, labels: Sequence[str]) -> int:
    """Return the index of a column, found by its exact name or by its name in another case."""
    if labels.count(name) == 1:
        return labels.index(name)
    alike = [number for number, label in enumerate(labels) if label.upper() == name.upper()]
    if len(alike) != 1:
        raise UdfValueError(
            f"the rows have {'no' if not alike else 'more than one'} column {name}; they have "
            f"{', '.join(labels) or 'none'}"
        )
    return alike[0]


def _key(value: Any) -> Hashable:
    key: Hashable = None if is_null(value) else value
    return key


def wire_column(column: ScriptColumn, *, int32_digits: int, int64_digits: int) -> Column:
    """Return the description of a column for the client.

    Args:
        column: a column of the script.
        int32_digits: largest precision of a DECIMAL(p,0) that is sent as INT32.
        int64_digits: largest precision of one that is sent as INT64.
    """
    sql = column.type
    kind = _OTHER_TYPES.get(sql.kind, ColumnType.NUMERIC)
    if sql.precision is not None and sql.scale == 0:
        if sql.precision <= int32_digits:
            kind = ColumnType.INT32
        elif sql.precision <= int64_digits:
            kind = ColumnType.INT64
    return Column(
        name=column.name,
        type=kind,
        type_name=str(sql),
        size=sql.size,
        precision=sql.precision if sql.kind == "DECIMAL" else None,
        scale=sql.scale,
    )


def wire_columns(
    columns: Sequence[Sequence[Any]], types: Sequence[ScriptColumn], kinds: Sequence[ColumnType]
) -> list[Sequence[WireValue]]:
    """Convert the columns of the input to values as they are sent.

    Args:
        columns: the values of each column.
        types: the parameters of the script.
        kinds: the type of each column in messages.

    Raises:
        UdfValueError: a value does not fit its column.
    """
    return [_sent(*each) for each in zip(columns, types, kinds, strict=True)]


def _sent(values: Sequence[Any], column: ScriptColumn, kind: ColumnType) -> Sequence[WireValue]:
    if kind is not ColumnType.NUMERIC and _needs_no_conversion(values, column.type):
        return values
    convert = _to_wire(column.type, kind)
    cells: list[WireValue] = []
    try:
        cells.extend(None if is_null(value) else convert(value) for value in values)
    except ValueError as error:
        # extend keeps the cells before the failure
        raise UdfValueError(
            f"row {len(cells) + 1}, column {column.name}: {_shown(values[len(cells)])} does not "
            f"fit {column.type}: {error}"
        ) from None
    return cells


def python_columns(
    columns: Sequence[Sequence[WireValue]], types: Sequence[ScriptColumn], *, first: int = 1
) -> list[Sequence[Any]]:
    """Convert the columns of emitted rows to Python values.

    Args:
        columns: the cells of each column.
        types: the output columns of the script.
        first: number of the first row, for errors.

    Raises:
        UdfError: a value does not fit its column: the database refuses it.
    """
    return [_received(cells, column, first) for cells, column in zip(columns, types, strict=True)]


def _received(cells: Sequence[WireValue], column: ScriptColumn, first: int) -> Sequence[Any]:
    if _needs_no_conversion(cells, column.type):
        return cells
    convert = _from_wire(column.type)
    values: list[Any] = []
    try:
        values.extend(None if cell is None else convert(cell) for cell in cells)
    except (ValueError, InvalidOperation) as error:
        reason = "it is not a number" if isinstance(error, InvalidOperation) else error
        raise UdfError(
            f"row {first + len(values)}, output column {column.name}: the script emitted "
            f"{_shown(cells[len(values)])}, which does not fit {column.type}: {reason}"
        ) from None
    return values


def _needs_no_conversion(values: Sequence[Any], sql: SqlType) -> bool:
    """Return whether a column needs no conversion, in either direction: the fast path.

    If False, its values are converted and checked one by one.
    """
    kinds = set(map(type, values))
    if sql.kind == "DOUBLE":
        # the sum is finite only if all numbers are
        return kinds == {float} and math.isfinite(sum(values))
    if sql.kind == "BOOLEAN":
        return kinds == {bool}
    if sql.kind == "VARCHAR" and kinds == {str}:
        sizes = set(map(len, values))
        return min(sizes) > 0 and max(sizes) <= (sql.size or 0) and "".join(values).isascii()
    if sql.kind == "DECIMAL" and kinds == {int} and not sql.scale:
        precision = sql.precision or 0
        limit = 10**precision
        return precision <= _INT_DIGITS and -limit < min(values) and max(values) < limit
    return False


def value_of_text(text: str, sql: SqlType) -> Any:
    """Convert a field of a CSV file to a value of its column's type; an empty field is NULL.

    Args:
        text: the field.
        sql: the type of its column.

    Raises:
        ValueError: the text is not a value of this type.
    """
    parse = _PARSERS.get(sql.kind, str)
    return parse(text) if text else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(_number(text))
    except InvalidOperation:
        raise ValueError("it is not a number") from None


def _double(text: str) -> float:
    try:
        return float(_number(text))
    except ValueError:
        raise ValueError("it is not a number") from None


def _number(text: str) -> str:
    if "_" in text:  # valid in Python, but not in SQL
        raise ValueError("it is not a number")
    return text


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("it is neither true nor false")
    return word in _TRUE


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("it is not a date of the form YYYY-MM-DD") from None


def _timestamp(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "it is not a timestamp of the form YYYY-MM-DD HH:MM:SS or YYYY-MM-DD HH:MM:SS.FFFFFF"
        ) from None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "DECIMAL": _decimal,
    "DOUBLE": _double,
    "BOOLEAN": _truth,
    "DATE": _date,
    "TIMESTAMP": _timestamp,
}


def is_null(value: Any) -> bool:
    """Return whether a value is NULL in Exasol: None, pandas' NA and NaT, NaN, an empty text."""
    kind = type(value)
    if kind in _NEVER_NULL:
        return False
    if value is None or kind.__name__ in ("NAType", "NaTType"):  # pandas
        return True
    if isinstance(value, str):
        return not value  # in Exasol, the empty string is NULL
    return (_is_float(value) or kind is Decimal) and math.isnan(value)  # so is NaN


# --- to the wire ---------------------------------------------------------------------------------


def _to_wire(sql: SqlType, kind: ColumnType) -> Callable[[Any], WireValue]:
    if sql.kind == "DECIMAL":
        return _decimal_to_wire(sql, as_text=kind == ColumnType.NUMERIC)
    if sql.kind in ("VARCHAR", "CHAR"):
        return _text_to_wire(sql)
    converters: dict[str, Callable[[Any], WireValue]] = {
        "DOUBLE": _double_to_wire,
        "BOOLEAN": _boolean_to_wire,
        "DATE": _date_to_wire,
        "TIMESTAMP": _timestamp_to_wire,
    }
    return converters[sql.kind]


def _decimal_to_wire(sql: SqlType, *, as_text: bool) -> Callable[[Any], WireValue]:
    precision, scale = sql.precision or 0, sql.scale or 0
    limit = 10 ** (precision - scale)
    unit = Decimal(1).scaleb(-scale)

    def convert(value: Any) -> WireValue:
        number: Decimal | int
        if isinstance(value, Decimal):
            number = value
        elif _is_boolean(value):
            raise ValueError("it is a boolean")
        elif hasattr(value, "__index__"):
            number = operator.index(value)
        elif _is_float(value):
            number = Decimal(repr(float(value)))
        else:
            raise ValueError(f"it is not a number but {type(value).__name__}")
        if isinstance(number, Decimal) and not number.is_finite():
            raise ValueError("Exasol has no infinity")
        if not -limit < number < limit:
            raise _magnitude_error(precision - scale)
        if isinstance(number, int) and not scale:
            return str(number) if as_text else number
        exact = Decimal(number).quantize(unit, context=_EXACT)
        if exact != number:
            raise ValueError(
                f"it has more than {scale} digits after the point"
                if scale
                else "it is not a whole number"
            )
        return f"{exact:f}" if as_text else int(exact)

    return convert


def _magnitude_error(digits: int) -> ValueError:
    if not digits:
        return ValueError("it is not between -1 and 1")
    return ValueError(f"it has more than {digits} digits before the point")


def _text_to_wire(sql: SqlType) -> Callable[[Any], WireValue]:
    size = sql.size or 0

    def convert(value: Any) -> WireValue:
        if not isinstance(value, str):
            raise ValueError(f"it is not a text but {type(value).__name__}")  # noqa: TRY004
        if len(value) > size:
            raise ValueError(f"it has {len(value)} characters")
        try:
            value.encode("ascii" if sql.ascii else "utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the character {value[error.start]!a} is not in its character set"
            ) from None
        return str(value).ljust(size) if sql.kind == "CHAR" else str(value)

    return convert


def _double_to_wire(value: Any) -> float:
    if _is_boolean(value):
        raise ValueError("it is a boolean")
    if not (isinstance(value, Decimal) or _is_float(value) or hasattr(value, "__index__")):
        raise ValueError(f"it is not a number but {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("Exasol has no infinity")
    return number


def _boolean_to_wire(value: Any) -> bool:
    if not _is_boolean(value):
        raise ValueError(f"it is not a boolean but {type(value).__name__}")
    return bool(value)


def _date_to_wire(value: Any) -> str:
    if not isinstance(value, date):
        raise ValueError(f"it is not a date but {type(value).__name__}")  # noqa: TRY004
    if isinstance(value, datetime) and value.timetz() != time():
        raise ValueError("it has a time")
    return value.isoformat()[:10]


def _timestamp_to_wire(value: Any) -> str:
    if not isinstance(value, date):
        raise ValueError(f"it is not a timestamp but {type(value).__name__}")  # noqa: TRY004
    if not isinstance(value, datetime):
        return f"{value.isoformat()} 00:00:00.000000"
    if value.tzinfo:
        raise ValueError("it has a time zone")
    if getattr(value, "nanosecond", 0):  # a pandas.Timestamp
        raise ValueError("it has more than 6 digits after the point")
    text: str = value.isoformat(sep=" ", timespec="microseconds")
    return text


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # numpy's


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or type(value).__name__ in ("float32", "float16")  # numpy's


# --- from the wire -------------------------------------------------------------------------------


def _from_wire(sql: SqlType) -> Callable[[Any], Any]:
    if sql.kind == "DECIMAL":
        return _decimal_from_wire(sql)
    if sql.kind in ("VARCHAR", "CHAR"):
        return _text_from_wire(sql)
    return {
        "DOUBLE": lambda number: None if math.isnan(number) else number,
        "BOOLEAN": bool,
        "DATE": lambda text: _date(text[:10]),
        "TIMESTAMP": lambda text: _timestamp(text[:26]),
    }[sql.kind]


def _decimal_from_wire(sql: SqlType) -> Callable[[Any], Any]:
    precision, scale = sql.precision or 0, sql.scale or 0
    limit = 10 ** (precision - scale)
    is_int = not scale and precision <= _INT_DIGITS

    def convert(value: Any) -> int | Decimal:
        number = Decimal(value)
        if not -limit < number < limit:
            raise _magnitude_error(precision - scale)
        return int(number) if is_int and number == int(number) else number

    return convert


def _text_from_wire(sql: SqlType) -> Callable[[Any], Any]:
    size = sql.size or 0

    def convert(value: Any) -> str | None:
        if len(value) > size:
            raise ValueError(f"it has {len(value)} characters")
        return value or None  # in Exasol, the empty string is NULL

    return convert


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."  # noqa: PLR2004 -- a line
