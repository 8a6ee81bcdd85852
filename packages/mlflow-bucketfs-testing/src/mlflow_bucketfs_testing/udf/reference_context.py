"""``ctx`` of the reference client: read a group and emit rows, one by one or in data frames.

Values are accepted, changed and refused as in Exasol's client, with the same error texts and
including its defects (docs/testing/udf-behaviour.md).
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_bucketfs_testing.udf.messages import ColumnType, IterationType, Meta, WireValue
from mlflow_bucketfs_testing.udf.reference_channel import (
    HostError,
    sent_integer,
    sent_size,
    sent_text,
    setter_error_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import TypeAlias

    from mlflow_bucketfs_testing.udf.reference_channel import InputRows, OutputRows

    Senders: TypeAlias = dict[ColumnType, Callable[[Any], WireValue]]

_NAMES_IN_ERRORS = {
    ColumnType.DOUBLE: "float",
    ColumnType.BOOLEAN: "bool",
    ColumnType.INT32: "int",
    ColumnType.INT64: "long",
    ColumnType.STRING: "unicode",
    ColumnType.NUMERIC: "decimal.Decimal",
    ColumnType.DATE: "datetime.date",
    ColumnType.TIMESTAMP: "datetime.datetime",
}


class Context:
    """The argument ``ctx`` of ``run``.

    Its own attributes have mangled names, since every other name is that of a column.

    Args:
        meta: input and output of the script.
        rows: the input rows.
        output: the emitted rows.
        script_globals: the script's globals, in which Exasol's client looks up ``datetime`` and
            ``decimal``: a script that binds these names to something else causes errors.
    """

    def __init__(
        self, meta: Meta, rows: InputRows, output: OutputRows, script_globals: dict[str, Any]
    ) -> None:
        self.__meta = meta
        self.__input = rows
        self.__output = output
        self.__globals = script_globals
        self.__columns: dict[Any, int] = {}
        for index, column in enumerate(meta.input_columns):
            self.__columns[column.name] = self.__columns[index] = index
        self.__readers = [
            self.__reader(column.type, column.scale or 0) for column in meta.input_columns
        ]
        self.__kinds = [column.type for column in meta.output_columns]
        self.__cache: dict[int, Any] = {}
        self.__finished = False
        self.__frames_finished = False

    def __getitem__(self, key: Any) -> Any:
        if self.__finished:
            raise RuntimeError("E-UDF-CL-SL-PYTHON-1081: Iteration finished")
        index = self.__index(key)
        if index is None:
            raise RuntimeError(f"E-UDF-CL-SL-PYTHON-1082: Column with name '{key}' does not exist")
        return self.__value(index, 1083)

    def __getattr__(self, key: str) -> Any:
        if self.__finished:
            raise RuntimeError("E-UDF-CL-SL-PYTHON-1084: Iteration finished")
        index = self.__index(key)
        if index is None:
            raise RuntimeError(f"E-UDF-CL-SL-PYTHON-1085: Iterator has no object with name '{key}'")
        return self.__value(index, 1086)

    def next(self, reset: bool = False) -> bool:
        """Go to the next row, and return whether there is one.

        Args:
            reset: whether to go to the first row instead.
        """
        self.__cache.clear()
        if self.__finished and not reset:
            return False
        try:
            if reset:
                self.__input.reset()
                self.__finished = False
                return True
            self.__finished = not self.__input.next()
        except HostError as error:
            raise RuntimeError(f"F-UDF-CL-SL-PYTHON-1102: {error}") from None
        return not self.__finished

    def reset(self) -> bool:
        """Go back to the first row."""
        self.__frames_finished = False
        return self.next(reset=True)

    def size(self) -> int:
        """Return the number of rows in the group."""
        return self.__input.rows_in_group

    def emit(self, *output: Any) -> None:
        """Emit a row, or the rows of a data frame.

        Args:
            output: a value per output column, or one data frame.
        """
        if len(output) == 1 and type(output[0]).__name__ == "DataFrame":
            self.__emit_frame(output[0])
            return
        wanted = len(self.__kinds)
        if len(output) != wanted:
            code, plural = (1089, "s") if wanted > 1 else (1090, "")
            raise TypeError(
                f"E-UDF-CL-SL-PYTHON-{code}: emit() takes exactly {wanted} argument{plural} "
                f"({len(output)} given)"
            )
        row = tuple([self.__sent(value, index) for index, value in enumerate(output)])
        try:
            self.__output.add((row,), (sum(map(sent_size, self.__kinds, row)),))
        except HostError as error:
            raise RuntimeError(f"F-UDF-CL-SL-PYTHON-1100: {error}") from None

    def get_dataframe(self, num_rows: Any = 1, start_col: Any = 0) -> Any:
        """Return the current row and those that follow as a data frame; None at the end.

        Args:
            num_rows: largest number of rows, or ``"all"``.
            start_col: index of the first column.
        """
        if num_rows != "all" and not (type(num_rows) is int and num_rows > 0):
            raise RuntimeError(
                "E-UDF-CL-SL-PYTHON-1103: get_dataframe() parameter 'num_rows' must be 'all' or "
                "an integer > 0"
            )
        if type(start_col) is not int or start_col < 0:
            raise RuntimeError(
                "E-UDF-CL-SL-PYTHON-1104: get_dataframe() parameter 'start_col' must be an "
                "integer >= 0"
            )
        columns = self.__meta.input_columns
        if start_col > len(columns):
            raise RuntimeError(
                f"E-UDF-CL-SL-PYTHON-1105: get_dataframe() parameter 'start_col' is {start_col}, "
                f"but there are only {len(columns)} input columns"
            )
        if self.__frames_finished:
            raise RuntimeError("E-UDF-CL-SL-PYTHON-1106: Iteration finished")
        if self.__finished:
            self.__frames_finished = True
            return None
        frames = _frames()
        self.__cache.clear()
        try:
            if self.__meta.input_iteration is IterationType.MULTIPLE:
                count = sys.maxsize if num_rows == "all" else num_rows
                rows, self.__finished = self.__input.take(count)
            else:
                rows = [tuple(self.__input.value(index) for index in range(len(columns)))]
        except HostError as error:
            raise RuntimeError(
                f"F-UDF-CL-SL-PYTHON-1051: getColumnData(): next(): {error}"
            ) from None
        return frames.frame_of(columns[start_col:], [row[start_col:] for row in rows])

    def __index(self, key: Any) -> int | None:
        index = self.__columns.get(key)
        return self.__columns.get(str(key)) if index is None else index

    def __value(self, index: int, code: int) -> Any:
        if index not in self.__cache:
            try:
                value = self.__input.value(index)
            except HostError as error:
                raise RuntimeError(f"F-UDF-CL-SL-PYTHON-{code}: {error}") from None
            read = self.__readers[index]
            self.__cache[index] = value if value is None or read is None else read(value)
        return self.__cache[index]

    def __reader(self, kind: ColumnType, scale: int) -> Callable[[Any], Any] | None:
        if kind is ColumnType.NUMERIC:
            return int if scale == 0 else self.__decimal
        if kind is ColumnType.DATE:
            return lambda text: self.__datetime(text, "%Y-%m-%d").date()
        if kind is ColumnType.TIMESTAMP:
            return lambda text: self.__datetime(text, "%Y-%m-%d %H:%M:%S.%f")
        return None

    def __decimal(self, text: str) -> Any:
        return self.__globals["decimal"].Decimal(text)

    def __datetime(self, text: str, layout: str) -> Any:
        return self.__globals["datetime"].datetime.strptime(text, layout)

    def __sent(self, value: Any, column: int) -> WireValue:
        """Return a value as it is sent in an output column; raise if the client refuses it."""
        if value is None:
            return None
        given = type(value)
        if given not in _PLAIN:
            if value == None:  # noqa: E711 -- as in Exasol's client: pandas.NA raises here
                return None
            self.__require_known(given)
        code, senders = _SENDERS[given]
        send = senders.get(self.__kinds[column])
        return self.__refuse(code, value, column) if send is None else send(value)

    def __require_known(self, given: type) -> None:
        """Raise for a type that the client does not support; types are looked up in the globals."""
        if given is not self.__globals["decimal"].Decimal:
            names = self.__globals["datetime"]
            if given is not names.date and given is not names.datetime:
                raise RuntimeError(f"E-UDF-CL-SL-PYTHON-1098: data type {given} is not supported")

    def __refuse(self, code: int, value: Any, column: int) -> NoReturn:
        is_returned = self.__meta.output_iteration is IterationType.EXACTLY_ONCE
        name = "RETURN" if is_returned else self.__meta.output_columns[column].name
        raise RuntimeError(
            f"E-UDF-CL-SL-PYTHON-{code}: emit column '{name}' is of type "
            f"{_NAMES_IN_ERRORS[self.__kinds[column]]} but data given have type {type(value)}"
        )

    def __emit_frame(self, frame: Any) -> None:
        rows, columns = frame.shape
        wanted = len(self.__kinds)
        if rows == 0:
            raise RuntimeError("E-UDF-CL-SL-PYTHON-1087: emit DataFrame is empty")
        if columns != wanted:
            raise TypeError(
                f"E-UDF-CL-SL-PYTHON-1088: emit() takes exactly {wanted} "
                f"argument{'s' if wanted > 1 else ''} ({columns} given)"
            )
        sent, failure = _frames().rows_of(frame, self.__kinds)
        sizes = [
            [sent_size(kind, value) for value in values]
            for kind, values in zip(self.__kinds, sent, strict=True)
        ]
        try:
            self.__output.add(zip(*sent, strict=True), map(sum, zip(*sizes, strict=True)))
        except HostError as error:
            raise RuntimeError(
                f"F-UDF-CL-SL-PYTHON-1136: F-UDF-CL-SL-PYTHON-1075: emit(): {error}"
            ) from None
        if failure:
            raise RuntimeError(failure)


def _send_float_to_numeric(_: float) -> WireValue:
    # Exasol's client passes the text to the function for integers
    raise TypeError(setter_error_text(ColumnType.INT64))


_TO_INTEGER: Senders = {
    ColumnType.INT32: lambda value: sent_integer(int(value), ColumnType.INT32),
    ColumnType.INT64: lambda value: sent_integer(int(value), ColumnType.INT64),
}
_TO_NUMBER: Senders = {**_TO_INTEGER, ColumnType.NUMERIC: str, ColumnType.DOUBLE: float}
_PLAIN = (int, float, bool, str)
# Type of an emitted value → the code of the error for an output column of another type, and how
# the value is sent in each type of column
_SENDERS: dict[type, tuple[int, Senders]] = {
    int: (1091, _TO_NUMBER),
    float: (1092, {**_TO_NUMBER, ColumnType.NUMERIC: _send_float_to_numeric}),
    bool: (1093, {ColumnType.BOOLEAN: bool}),
    str: (1094, {ColumnType.STRING: lambda text: sent_text(text, ColumnType.STRING)}),
    decimal.Decimal: (1095, _TO_NUMBER),
    dt.date: (1096, {ColumnType.DATE: dt.date.isoformat}),
    dt.datetime: (1097, {ColumnType.TIMESTAMP: lambda time: time.isoformat(" ")}),
}


def _frames() -> ModuleType:
    """Import the module that needs pandas, when a script first uses a data frame.

    Raises:
        RuntimeError: pandas cannot be imported.
    """
    try:
        from mlflow_bucketfs_testing.udf import reference_frames  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise RuntimeError(
            "data frames in ctx.get_dataframe() and ctx.emit() need pandas, which cannot be "
            f"imported ({error}); install it for {sys.executable}, or read and emit row by row"
        ) from None
    return reference_frames
