"""Data frames in the reference client; imported only when a script uses one, as it needs pandas.

Both directions use pandas and numpy as Exasol's client does: a frame is created from rows of
Python values, and an emitted frame is read through ``DataFrame.values``, which may convert all
columns to float64.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlflow_bucketfs_testing.udf.messages import ColumnType
from mlflow_bucketfs_testing.udf.reference_channel import (
    INTEGERS,
    sent_integer,
    sent_text,
    setter_error_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from mlflow_bucketfs_testing.udf.messages import Column, WireValue

    # returns the value as it is sent, or raises with the text that the SQL user sees
    Send: TypeAlias = Callable[[Any], WireValue]

_NULL_POINTER = "F-UDF-CL-SL-PYTHON-1130: PyObject is unexpectedly a null pointer"
_TIMESTAMP_LENGTH = len("2026-01-31 23:59:59.123456")


class _RefusedError(Exception):
    """A cell that the client refuses; in the message, its text follows the frame's error code."""


# --- into a script -------------------------------------------------------------------------------


def frame_of(columns: Sequence[Column], rows: list[tuple[WireValue, ...]]) -> pd.DataFrame:
    """Return rows as a data frame.

    Args:
        columns: the columns.
        rows: the rows as they were sent; at least one.

    Raises:
        RuntimeError: a text is not a date, timestamp or decimal number.
    """
    names = [column.name for column in columns]
    read = {index: _READERS[c.type] for index, c in enumerate(columns) if c.type in _READERS}
    values: Any = rows
    if read:
        cells: list[Sequence[Any]] = list(zip(*rows, strict=True))
        try:
            for index, reader in read.items():
                cells[index] = [None if v is None else reader(v) for v in cells[index]]
        except (ValueError, decimal.InvalidOperation):
            raise RuntimeError(_NULL_POINTER) from None
        values = list(zip(*cells, strict=True))
    return pd.DataFrame(values, columns=names)


def _date(text: str) -> dt.date:
    return dt.datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 -- a date has none


def _timestamp(text: str) -> dt.datetime:
    if len(text) == _TIMESTAMP_LENGTH and text[10] == " " and text[20:].isdecimal():
        return dt.datetime.fromisoformat(text)  # the same, ten times as fast
    return dt.datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 -- no zone


_READERS: dict[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMERIC: decimal.Decimal,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMP: _timestamp,
}


# --- out of a script -----------------------------------------------------------------------------


def rows_of(
    frame: pd.DataFrame, kinds: Sequence[ColumnType]
) -> tuple[list[list[WireValue]], str | None]:
    """Convert a data frame to columns of values as they are sent.

    Args:
        frame: the data frame; it has at least one row, and a column per output column.
        kinds: types of the output columns.

    Returns:
        The columns up to the first refused row, and the reason why it is refused, or None.

    Raises:
        RuntimeError: a complete column is refused, because of its type.
    """
    dtypes = [str(dtype) for dtype in frame.dtypes]
    for dtype in dtypes:
        _require_known(dtype)
    if all(dtype == _DATETIME for dtype in dtypes):
        frame = frame.astype(object)
    objects = np.asarray(frame.values, dtype=object)
    columns = [
        _column(index, dtype, kind, objects[:, index])
        for index, (dtype, kind) in enumerate(zip(dtypes, kinds, strict=True))
    ]
    sent: list[list[WireValue]] = []
    refused: tuple[int, int, str] | None = None
    for index, (cells, send) in enumerate(columns):
        values, reason = _sent(cells, send, index)
        sent.append(values)
        if reason is not None and (refused is None or len(values) < refused[0]):
            refused = (len(values), index, reason)
    if refused is None:
        return sent, None
    return [values[: refused[0]] for values in sent], f"F-UDF-CL-SL-PYTHON-1136: {refused[2]}"


def _sent(cells: list[Any], send: Send | None, column: int) -> tuple[list[WireValue], str | None]:
    """Return a column's values as they are sent, up to the first refused one, and the reason."""
    if send is None:
        return cells, None
    values: list[WireValue] = []
    try:
        for cell in cells:
            values.append(None if cell is None else send(cell))  # noqa: PERF401 -- kept if it fails
    except _RefusedError as error:
        return values, str(error)
    except (TypeError, OverflowError) as error:
        # from Python 3.12 on, the exception that Exasol's client fetches has no text
        text = "" if sys.version_info >= (3, 12) else str(error)
        return values, (
            f"F-UDF-CL-SL-PYTHON-1074: emit(): Error setting value for row {len(values)}, "
            f"column {column}: {text}"
        )
    return values, None


_DATETIME = "datetime64[ns]"
# dtype → the dtype to which the column's values in ``DataFrame.values`` are converted, and the
# code of the error for an output column of another type
_NUMBERS = {
    **{
        f"{sign}int{bits}": (f"{sign}int{bits}", code)
        for sign in ("", "u")
        for bits, code in ((8, 1061), (16, 1060), (32, 1059), (64, 1058))
    },
    "float16": ("float32", 1063),
    "float32": ("float32", 1063),
    "float64": ("float64", 1062),
    "bool": ("bool", 1065),
}
_ARROW = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string"),
    *("float16", "float32", "float64", "float", "double", "halffloat"),
)
_OBJECTS = {
    *("object", "boolean", "string", "string[python]", "timestamp[ns, tz=UTC][pyarrow]"),
    *(f"{name}[pyarrow]" for name in _ARROW),
}


def _require_known(dtype: str) -> None:
    if dtype in _NUMBERS or dtype in _OBJECTS or dtype == _DATETIME:
        return
    if dtype.startswith("decimal128(") and dtype.endswith("[pyarrow]"):
        return
    reason = f"1054: emit: unexpected type: {dtype}"
    if dtype.startswith("datetime64["):
        reason = (
            f"1138: emit: unsupported datetime type: {dtype} emit dataframe only supports "
            "datetime64[ns] which represents datetime with nanosecond resolution without time "
            "zone. If you need time zone please use an additional result column. Note: the "
            "nanosecond resolution gets truncated by the database to milliseconds"
        )
    raise RuntimeError(f"F-UDF-CL-SL-PYTHON-1134: F-UDF-CL-SL-PYTHON-{reason}")


def _column(
    index: int, dtype: str, kind: ColumnType, objects: Any
) -> tuple[list[Any], Send | None]:
    """Return the cells of a column, None for NULL, and the sender of a cell; None: sent as is."""

    def refuse(code: int, given: str) -> Send:
        def send(_: Any) -> WireValue:
            raise _RefusedError(
                f"F-UDF-CL-SL-PYTHON-{code}: emit column {index} of type {kind.name} but data "
                f"given have type {given}"
            )

        return send

    if dtype in _NUMBERS:
        taken_as, code = _NUMBERS[dtype]
        try:
            array = objects.astype(taken_as, copy=False)
        except (TypeError, ValueError, OverflowError):
            raise RuntimeError(f"F-UDF-CL-SL-PYTHON-1135: {_NULL_POINTER}") from None
        if array.dtype.kind == "b":
            return array.tolist(), None if kind is ColumnType.BOOLEAN else refuse(code, dtype)
        if kind not in _SEND_NUMBER:
            return _number_cells(array, kind), refuse(code, dtype)
        send = _SEND_NUMBER[kind]
        is_text = kind is ColumnType.NUMERIC and array.dtype.kind == "f"
        return _number_cells(array, kind), "{:f}".format if is_text else send
    if dtype == _DATETIME:
        cells = [None if cell is pd.NaT else cell for cell in objects.tolist()]
        return cells, _send_datetime if kind is ColumnType.TIMESTAMP else refuse(1072, dtype)
    cells = [None if cell is pd.NA else cell for cell in objects.tolist()]
    first = next((cell for cell in cells if cell is not None), None)
    if first is None:
        return cells, None
    if type(first) not in _SEND_OBJECT:
        raise RuntimeError(
            f"F-UDF-CL-SL-PYTHON-1135: F-UDF-CL-SL-PYTHON-1056: emit: column {index}, unexpected "
            f"python type: py_{_tp_name(type(first))}"
        )
    name, code, senders = _SEND_OBJECT[type(first)]
    return cells, senders.get(kind) or refuse(code, f"py_{name}")


def _number_cells(array: Any, kind: ColumnType) -> list[Any]:
    """Return Python numbers, None for NaN; integers for an output column of integers.

    Unsigned integers are read as signed ones, as Exasol's client reads their memory.
    """
    if array.dtype.kind == "u":
        array = array.view(array.dtype.name.removeprefix("u"))
    missing = np.isnan(array).nonzero()[0].tolist() if array.dtype.kind == "f" else ()
    if kind in INTEGERS:
        with np.errstate(invalid="ignore"):
            array = array.astype("int64")  # truncates; a number that is too large becomes -2**63
    cells: list[Any] = array.tolist()
    for row in missing:
        cells[row] = None
    return cells


def _tp_name(of: type) -> str:
    """Return the ``tp_name`` of a type in C: with its module, unless it is a heap type."""
    is_heap_type = of.__flags__ & (1 << 9)
    has_module = not is_heap_type and of.__module__ != "builtins"
    return f"{of.__module__}.{of.__name__}" if has_module else of.__name__


def _integer_sender(kind: ColumnType) -> Send:
    def send(value: Any) -> int:
        if not isinstance(value, int):
            raise TypeError(setter_error_text(kind))
        return sent_integer(int(value), kind)

    return send


def _text_sender(kind: ColumnType) -> Send:
    def send(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(setter_error_text(kind))
        return sent_text(value, kind)

    return send


def _send_string(value: Any) -> str:
    try:
        return sent_text(value, ColumnType.STRING)
    except (AttributeError, TypeError):
        raise _RefusedError("F-UDF-CL-SL-PYTHON-1137: invalid size of string") from None


def _send_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise _RefusedError("F-UDF-CL-SL-PYTHON-1039")


def _send_double(value: Any) -> float:
    if not isinstance(value, (float, int)):
        raise TypeError(setter_error_text(ColumnType.DOUBLE))
    return float(value)


def _as_double(value: Any, error: str) -> float:
    try:
        if not isinstance(value, (str, bytes, bytearray)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _RefusedError(f"F-UDF-CL-SL-PYTHON-{error}: PyFloat_AsDouble error")


def _float_sender(kind: ColumnType) -> Send:
    def send(value: Any) -> int | None:
        number = _as_double(value, "1139: emit() PY_FLOAT")
        if number != number:  # noqa: PLR0124 -- NaN
            return None
        is_in_range = -(2.0**63) <= number < 2.0**63
        return sent_integer(int(number) if is_in_range else -(2**63), kind)

    return send


def _method_sender(call: Callable[[Any], Any], then: Send) -> Send:
    """Return a sender of a method's result; it refuses a value for which the method fails."""

    def send(value: Any) -> WireValue:
        try:
            result = call(value)
        except Exception:  # noqa: BLE001 -- Exasol's client reports a null pointer for all of them
            raise _RefusedError(_NULL_POINTER) from None
        return then(result)

    return send


def _send_datetime(value: Any) -> str:
    return str(value.isoformat(" "))


_TO_INT32 = _integer_sender(ColumnType.INT32)
_TO_INT64 = _integer_sender(ColumnType.INT64)
_SEND_NUMBER: dict[ColumnType, Send | None] = {
    ColumnType.INT32: _TO_INT32,
    ColumnType.INT64: None,
    ColumnType.NUMERIC: str,
    ColumnType.DOUBLE: float,
}
# Type of the first value of an object column that is not NULL → its name, the code of the error
# for an output column of another type, and the senders of all values of the column
_SEND_OBJECT: dict[type, tuple[str, int, dict[ColumnType, Send]]] = {
    bool: ("bool", 1066, {ColumnType.BOOLEAN: _send_bool}),
    int: (
        "int",
        1068,
        {
            ColumnType.INT32: _TO_INT32,
            ColumnType.INT64: _TO_INT64,
            ColumnType.NUMERIC: str,
            ColumnType.DOUBLE: lambda value: _as_double(value, "1067: emit() PY_INT"),
        },
    ),
    float: (
        "float",
        1140,
        {
            ColumnType.INT32: _float_sender(ColumnType.INT32),
            ColumnType.INT64: _float_sender(ColumnType.INT64),
            ColumnType.NUMERIC: str,
            ColumnType.DOUBLE: _send_double,
        },
    ),
    decimal.Decimal: (
        "decimal.Decimal",
        1069,
        {
            ColumnType.INT32: _method_sender(lambda value: value.__int__(), _TO_INT32),
            ColumnType.INT64: _method_sender(lambda value: value.__int__(), _TO_INT64),
            ColumnType.NUMERIC: str,
            ColumnType.DOUBLE: _method_sender(lambda value: value.__float__(), _send_double),
        },
    ),
    str: (
        "str",
        1070,
        {
            ColumnType.NUMERIC: _text_sender(ColumnType.NUMERIC),
            ColumnType.STRING: _send_string,
        },
    ),
    dt.date: (
        "datetime.date",
        1071,
        {ColumnType.DATE: _method_sender(lambda v: v.isoformat(), _text_sender(ColumnType.DATE))},
    ),
    pd.Timestamp: (
        "Timestamp",
        1141,
        {
            ColumnType.TIMESTAMP: _method_sender(
                lambda value: value.tz_localize(None).isoformat(" "),
                _text_sender(ColumnType.TIMESTAMP),
            )
        },
    ),
}
