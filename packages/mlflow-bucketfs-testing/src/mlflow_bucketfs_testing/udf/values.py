"""Convert values between Python and the wire, by the SQL type of their column."""

from __future__ import annotations

import math
import operator
from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_testing.errors import UdfError, UdfValueError
from mlflow_bucketfs_testing.udf.messages import Column, ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow_bucketfs_testing.udf.messages import WireValue
    from mlflow_bucketfs_testing.udf.script import ScriptColumn, SqlType

_INT_DIGITS = 18  # of DECIMAL(p,0) that come back as int; longer ones as Decimal
_NEVER_NULL = frozenset({bool, int, date, datetime})  # the quick way out for most cells
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


def wire_column(column: ScriptColumn, *, int32_digits: int, int64_digits: int) -> Column:
    """Describe a column to the client.

    Args:
        column: a column of the script.
        int32_digits: most digits of a DECIMAL(p,0) that is sent as INT32.
        int64_digits: most digits of one that is sent as INT64.
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


def wire_rows(
    rows: Sequence[Sequence[Any]], columns: Sequence[ScriptColumn], kinds: Sequence[ColumnType]
) -> list[tuple[WireValue, ...]]:
    """Convert input rows to what is sent.

    Args:
        rows: the rows, with a value per column.
        columns: the parameters of the script.
        kinds: how the values of each are sent.

    Raises:
        UdfValueError: A value does not fit its column.
    """
    cells = [
        _sent(values, column, kind)
        for values, column, kind in zip(_transposed(rows, columns), columns, kinds, strict=True)
    ]
    return list(zip(*cells, strict=True)) if cells else [()] * len(rows)


def _sent(values: Sequence[Any], column: ScriptColumn, kind: ColumnType) -> list[WireValue]:
    convert = _to_wire(column.type, kind)
    cells: list[WireValue] = []
    try:
        cells.extend(None if is_null(value) else convert(value) for value in values)
    except ValueError as error:
        # extend keeps what came before the failure
        raise UdfValueError(
            f"row {len(cells) + 1}, column {column.name}: {_shown(values[len(cells)])} does not "
            f"fit {column.type}: {error}"
        ) from None
    return cells


def _transposed(rows: Sequence[Sequence[Any]], columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * len(columns)


def python_values(
    rows: Sequence[tuple[WireValue, ...]], columns: Sequence[ScriptColumn], *, first: int = 1
) -> list[tuple[Any, ...]]:
    """Convert emitted rows to Python values, by the types of the output columns.

    Args:
        rows: what was emitted.
        columns: the output columns of the script.
        first: number of the first row, for errors.

    Raises:
        UdfError: A value is none of its column's type: the database refuses it.
    """
    values = [
        _received(cells, column, first)
        for cells, column in zip(_transposed(rows, columns), columns, strict=True)
    ]
    return list(zip(*values, strict=True))


def _received(cells: Sequence[WireValue], column: ScriptColumn, first: int) -> list[Any]:
    convert = _from_wire(column.type)
    values: list[Any] = []
    try:
        values.extend(None if cell is None else convert(cell) for cell in cells)
    except (ValueError, InvalidOperation) as error:
        raise UdfError(
            f"row {first + len(values)}, output column {column.name}: the script emitted "
            f"{_shown(cells[len(values)])}, which does not fit {column.type}: {error}"
        ) from None
    return values


def value_of_text(text: str, sql: SqlType) -> Any:
    """Convert the text of a CSV file to the value of a column; an empty text is NULL.

    Args:
        text: the field.
        sql: the type of its column.

    Raises:
        ValueError: The text is no such value.
    """
    parse = _PARSERS.get(sql.kind, str)
    return parse(text) if text else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(_number(text))
    except InvalidOperation:
        raise ValueError("it is no number") from None


def _double(text: str) -> float:
    return float(_number(text))


def _number(text: str) -> str:
    if "_" in text:  # Python's, not SQL's
        raise ValueError("it is no number")
    return text


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("it is neither true nor false")
    return word in _TRUE


_PARSERS: dict[str, Callable[[str], Any]] = {
    "DECIMAL": _decimal,
    "DOUBLE": _double,
    "BOOLEAN": _truth,
    "DATE": date.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
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
            raise ValueError(f"it is no number but {type(value).__name__}")
        if isinstance(number, Decimal) and not number.is_finite():
            raise ValueError("there is no infinity in Exasol")
        if not -limit < number < limit:
            raise ValueError(f"it has more than {precision - scale} digits before the point")
        if isinstance(number, int) and not scale:
            return str(number) if as_text else number
        exact = Decimal(number).quantize(unit, context=_EXACT)
        if exact != number:
            raise ValueError(f"it has more than {scale} digits after the point")
        return f"{exact:f}" if as_text else int(exact)

    return convert


def _text_to_wire(sql: SqlType) -> Callable[[Any], WireValue]:
    size = sql.size or 0

    def convert(value: Any) -> WireValue:
        if not isinstance(value, str):
            raise ValueError(f"it is no text but {type(value).__name__}")  # noqa: TRY004
        if len(value) > size:
            raise ValueError(f"it has {len(value)} characters")
        try:
            value.encode("ascii" if sql.ascii else "utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the character {value[error.start]!a} is not in it") from None
        return str(value).ljust(size) if sql.kind == "CHAR" else str(value)

    return convert


def _double_to_wire(value: Any) -> float:
    if _is_boolean(value):
        raise ValueError("it is a boolean")
    if not (isinstance(value, Decimal) or _is_float(value) or hasattr(value, "__index__")):
        raise ValueError(f"it is no number but {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("there is no infinity in Exasol")
    return number


def _boolean_to_wire(value: Any) -> bool:
    if not _is_boolean(value):
        raise ValueError(f"it is no boolean but {type(value).__name__}")
    return bool(value)


def _date_to_wire(value: Any) -> str:
    if not isinstance(value, date):
        raise ValueError(f"it is no date but {type(value).__name__}")  # noqa: TRY004
    if isinstance(value, datetime) and value.timetz() != time():
        raise ValueError("it has a time")
    return value.isoformat()[:10]


def _timestamp_to_wire(value: Any) -> str:
    if not isinstance(value, date):
        raise ValueError(f"it is no timestamp but {type(value).__name__}")  # noqa: TRY004
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
        "DATE": lambda text: date.fromisoformat(text[:10]),
        "TIMESTAMP": lambda text: datetime.fromisoformat(text[:26]),
    }[sql.kind]


def _decimal_from_wire(sql: SqlType) -> Callable[[Any], Any]:
    precision, scale = sql.precision or 0, sql.scale or 0
    limit = 10 ** (precision - scale)
    is_int = not scale and precision <= _INT_DIGITS

    def convert(value: Any) -> int | Decimal:
        number = Decimal(value)
        if not -limit < number < limit:
            raise ValueError(f"it has more than {precision - scale} digits before the point")
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
