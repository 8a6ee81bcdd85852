"""Rows on their way into and out of the reference client: packets, and values as they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.errors import UdfProtocolError
from mlflow_bucketfs_testing.udf.messages import (
    ColumnType,
    MessageType,
    Request,
    WireValue,
    pack_rows,
    unpack_rows,
)
from mlflow_bucketfs_testing.udf.reference_channel import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow_bucketfs_testing.udf.reference_channel import Channel

FLUSH_BYTES = 4_000_000
"""Size of the emitted values, by Exasol's count, from which an EMIT is sent."""

INTEGERS = {ColumnType.INT32: 2**31, ColumnType.INT64: 2**63}
"""The column types of integers, and the first number that is too large for each."""

_SIZES = {
    ColumnType.DOUBLE: 8,
    ColumnType.INT32: 4,
    ColumnType.INT64: 8,
    ColumnType.BOOLEAN: 1,
}
# The functions of Exasol's client that take a value, and the type of C that they want: these
# names are in its errors
_SETTERS = {
    ColumnType.DOUBLE: ("setDouble", "double"),
    ColumnType.INT32: ("setInt32", "int"),
    ColumnType.INT64: ("setInt64", "long long"),
    ColumnType.NUMERIC: ("setNumeric", "char *"),
    ColumnType.TIMESTAMP: ("setTimestamp", "char *"),
    ColumnType.DATE: ("setDate", "char *"),
    ColumnType.STRING: ("setString", "char *"),
    ColumnType.BOOLEAN: ("setBoolean", "bool"),
}


def setter_error(kind: ColumnType) -> str:
    """Return the text for a value that Exasol's client cannot pass from Python to C.

    Args:
        kind: type of the column.
    """
    name, c_type = _SETTERS[kind]
    return f"in method 'ResultHandler_{name}', argument 3 of type '{c_type}'"


def sent_integer(value: int, kind: ColumnType) -> int:
    """Return an integer as it is sent.

    Args:
        value: the integer.
        kind: INT32 or INT64.

    Raises:
        OverflowError: It is out of range.
    """
    if not -INTEGERS[kind] <= value < INTEGERS[kind]:
        raise OverflowError(setter_error(kind))
    return value


def sent_text(value: str, kind: ColumnType) -> str:
    """Return a text as it is sent: up to its first NUL, where a text of C ends.

    Args:
        value: the text.
        kind: type of the column.

    Raises:
        TypeError: It has surrogates, which UTF-8 has not.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(setter_error(kind)) from None
    return until_nul(value)


def until_nul(text: str) -> str:
    """Return the part of a text that a text of C can hold.

    Args:
        text: the text.
    """
    return text.partition("\0")[0]


def sent_size(kind: ColumnType, value: WireValue) -> int:
    """Return what a value counts for `FLUSH_BYTES`.

    Args:
        kind: type of the column.
        value: the value as it is sent.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        return 4 + (len(value) if value.isascii() else len(value.encode()))
    return _SIZES[kind]


class InputRows:
    """The rows of a group, one packet at a time.

    Args:
        channel: the connection to the host.
        kinds: types of the input columns.

    Raises:
        HostError: The host did not send the first packet.
    """

    def __init__(self, channel: Channel, kinds: Sequence[ColumnType]) -> None:
        self._channel = channel
        self._kinds = kinds
        self._texts = [index for index, kind in enumerate(kinds) if kind is ColumnType.STRING]
        self._rows: list[tuple[WireValue, ...]] = []
        self._numbers: list[int] = []
        self._position = 0
        self.rows_in_group = 0
        self.row_number = 0
        self.finish_early = False
        self._receive(MessageType.NEXT)

    def value(self, column: int) -> WireValue:
        """Return a value of the current row as it was sent.

        Args:
            column: index of the column.

        Raises:
            HostError: There is no row: the group is empty.
        """
        if not self._rows:
            raise HostError(
                "F-UDF-CL-LIB-1064: Internal error: not enough nulls in packet: wanted index "
                f"{column} but have 0 elements (on 0/0 of received/completed rows"
            )
        return self._rows[self._position][column]

    def next(self) -> bool:
        """Go to the next row; False if there is none.

        Raises:
            HostError: The end was reached before, or the host did not send the next packet.
        """
        if not self._rows:
            raise HostError("E-UDF-CL-LIB-1065: Iteration finished")
        if self.finish_early:
            return False
        self._advance(1)
        return bool(self._rows)

    def take(self, count: int) -> tuple[list[tuple[WireValue, ...]], bool]:
        """Return the current row and those that follow, and go to the row after them.

        Args:
            count: number of rows; there may be fewer.

        Returns:
            The rows, and whether the end was reached.

        Raises:
            HostError: The host did not send the next packet.
        """
        taken: list[tuple[WireValue, ...]] = []
        while self._rows and len(taken) < count:
            part = self._rows[self._position : self._position + count - len(taken)]
            taken += part
            self._advance(len(part))
        return taken, not self._rows

    def reset(self) -> None:
        """Go back to the first row of the group."""
        self.finish_early = False
        self._receive(MessageType.RESET)

    def _advance(self, count: int) -> None:
        self._position += count
        if self._position < len(self._rows):
            self.row_number = self._numbers[self._position]
        else:
            self._receive(MessageType.NEXT)

    def _receive(self, kind: MessageType) -> None:
        self._position = 0
        self._rows = []  # as at the end of the group, should the request fail
        table = self._channel.exchange(kind, kind, MessageType.DONE).next
        if table is None:
            return
        try:
            self._rows = unpack_rows(self._kinds, table)
        except UdfProtocolError as error:
            raise HostError(str(error)) from error
        if any("\0" in text for text in table.strings):
            self._rows = [self._cut(row) for row in self._rows]
        self._numbers = table.row_numbers or [0] * len(self._rows)
        self.rows_in_group = table.rows_in_group
        self.row_number = self._numbers[0]

    def _cut(self, row: tuple[WireValue, ...]) -> tuple[WireValue, ...]:
        cut = list(row)
        for index in self._texts:
            if isinstance(text := cut[index], str):
                cut[index] = until_nul(text)
        return tuple(cut)


class OutputRows:
    """The emitted rows, sent when there are enough of them.

    Args:
        channel: the connection to the host.
        kinds: types of the output columns.
        rows: the input, whose row number each emitted row has.
        waits: whether a full packet ends the run early instead of being sent (SCALAR RETURNS).
    """

    def __init__(
        self, channel: Channel, kinds: Sequence[ColumnType], rows: InputRows, *, waits: bool
    ) -> None:
        self._channel = channel
        self._kinds = kinds
        self._input = rows
        self._waits = waits
        self._rows: list[tuple[WireValue, ...]] = []
        self._numbers: list[int] = []
        self._size = 0

    def add(self, rows: Iterable[tuple[WireValue, ...]], sizes: Iterable[int]) -> None:
        """Add rows, and send those that fill a packet.

        Args:
            rows: values as they are sent; None for NULL.
            sizes: what each row counts for `FLUSH_BYTES`.

        Raises:
            HostError: The host refused a packet.
        """
        for row, size in zip(rows, sizes, strict=True):
            self._rows.append(row)
            self._numbers.append(self._input.row_number)
            self._size += size
            if self._size >= FLUSH_BYTES:
                if self._waits:
                    self._input.finish_early = True
                else:
                    self.flush()

    def flush(self) -> None:
        """Send what was added since the last packet.

        Raises:
            HostError: The host refused the packet.
        """
        if not self._rows:
            return
        table = pack_rows(self._kinds, self._rows, row_numbers=self._numbers)
        self._rows, self._numbers, self._size = [], [], 0
        self._channel.exchange(MessageType.EMIT, request=Request(MessageType.EMIT, emit=table))
