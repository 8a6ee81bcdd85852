"""The reference client's connection to the host: requests, and packets of rows in both directions.

Values are converted and refused as in Exasol's client.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import zmq

from mlflow_bucketfs_testing.errors import UdfProtocolError
from mlflow_bucketfs_testing.udf.codec import Codec, ProtobufCodec
from mlflow_bucketfs_testing.udf.messages import (
    Client,
    Close,
    ColumnType,
    Info,
    MessageType,
    Meta,
    Request,
    Response,
    Rows,
    pack_rows,
    unpack_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from mlflow_bucketfs_testing.udf.messages import WireValue

_WATCH_SECONDS = 0.1
# The code of the error for a response of an unexpected type, by the type of the request
_WRONG_RESPONSE = {
    MessageType.CLIENT: 1005,
    MessageType.META: 1019,
    MessageType.CLOSE: 1025,
    MessageType.RUN: 1032,
    MessageType.RETURN: 1036,
    MessageType.UNDEFINED_CALL: 1039,
    MessageType.DONE: 1043,
    MessageType.FINISHED: 1047,
    MessageType.IMPORT: 1054,
    MessageType.NEXT: 1063,
    MessageType.RESET: 1063,
    MessageType.EMIT: 1086,
}

FLUSH_BYTES = 4_000_000
"""Size of the emitted values, as counted by `sent_size`, from which an EMIT is sent."""

INTEGERS = {ColumnType.INT32: 2**31, ColumnType.INT64: 2**63}
"""The column types of integers, and the first number that is too large for each."""

_SIZES = {
    ColumnType.DOUBLE: 8,
    ColumnType.INT32: 4,
    ColumnType.INT64: 8,
    ColumnType.BOOLEAN: 1,
}
# The functions of Exasol's client that set an output value, and the C type of their argument: its
# errors contain these names
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


class HostError(Exception):
    """The host ended the session, or violated the protocol."""


class Channel:
    """A REQ socket to the host, which strictly alternates between request and response.

    Args:
        address: ``ipc:///path`` to connect to, or ``tcp://…`` to bind.
        codec: how messages are encoded.
    """

    def __init__(self, address: str, codec: Codec | None = None) -> None:
        self._address = address
        self._codec = codec or ProtobufCodec()
        self._context = zmq.Context()
        self._is_remote = address.startswith("tcp:")
        self._connection_id = 0
        if not self._is_remote:
            watch = (address.removeprefix("ipc://"), os.getppid())
            threading.Thread(target=_watch_host, args=watch, daemon=True).start()

    def introduce(self) -> tuple[Info, Meta]:
        """Repeat the first request until the host answers; return its description of the script.

        Raises:
            HostError: the host refused, or answered with another message.
        """
        client = Request(MessageType.CLIENT, client=Client(self._address))
        while True:
            self._socket = self._open_socket()
            try:
                self._socket.send(self._codec.encode_request(client))
                response = self._codec.decode_response(self._socket.recv())
            except zmq.Again:
                self._socket.close()
                continue
            except UdfProtocolError as error:
                raise HostError(str(error)) from error
            break
        self._connection_id = response.connection_id
        info = self._checked(client, response, (MessageType.INFO,)).info
        meta = self.exchange(MessageType.META).meta
        if info is None or meta is None:
            raise HostError("received INFO or META without its content")
        return info, meta

    def exchange(
        self, kind: MessageType, *expected: MessageType, request: Request | None = None
    ) -> Response:
        """Send a request and return its response.

        Args:
            kind: type of the request.
            expected: types that the response may have; the same as the request's by default.
            request: the request's content; None if it has none.

        Raises:
            HostError: the response is CLOSE, or has another type or connection id.
        """
        sent = request or Request(kind)
        self._socket.send(
            self._codec.encode_request(replace(sent, connection_id=self._connection_id))
        )
        while True:
            try:
                data = self._socket.recv()
            except zmq.Again:  # if the host is gone, `_watch_host` ends this process
                continue
            break
        try:
            response = self._codec.decode_response(data)
        except UdfProtocolError as error:
            raise HostError(str(error)) from error
        return self._checked(sent, response, expected or (kind,))

    def close(self, message: str) -> None:
        """Report an error to the host, and end the session.

        Args:
            message: the text for the SQL user.
        """
        request = Request(MessageType.CLOSE, close=Close(message))
        self.exchange(MessageType.CLOSE, MessageType.FINISHED, request=request)

    def _open_socket(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000 if self._is_remote else 1_000)
        socket.setsockopt(zmq.SNDTIMEO, 5_000 if self._is_remote else 1_000)
        if self._is_remote:
            socket.bind(self._address)
        else:
            socket.connect(self._address)
        return socket

    def _checked(
        self, request: Request, response: Response, expected: tuple[MessageType, ...]
    ) -> Response:
        if response.connection_id != self._connection_id:
            raise HostError(
                "F-UDF-CL-LIB-1061: Communication error: wrong connection id, expected "
                f"{self._connection_id} got {response.connection_id}"
            )
        if response.type in expected:
            return response
        if response.close is not None and response.close.exception_message is not None:
            raise HostError(response.close.exception_message)
        kind = MessageType(request.type)
        got = response.type.name if isinstance(response.type, MessageType) else response.type
        raise HostError(
            f"F-UDF-CL-LIB-{_WRONG_RESPONSE[kind]}: Wrong response type, should be "
            f"{' or '.join(f'MT_{wanted.name}' for wanted in expected)}, got MT_{got}"
        )


def _watch_host(socket_path: str, parent: int) -> None:
    """End this process when the host's socket or the parent process is gone."""
    never_set = threading.Event()  # to wait without another import
    while not never_set.wait(_WATCH_SECONDS):
        if not os.access(socket_path, os.F_OK):
            _abort(f"F-UDF-CL-LIB-1000: cannot access socket file {socket_path}")
        if os.getppid() != parent:
            _abort(
                f"F-UDF-CL-LIB-1001: current parent pid {os.getppid()} different to first parent "
                f"pid {parent}"
            )


def _abort(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}; the reference client aborts\n")
    sys.stderr.flush()
    os.abort()


# --- rows ---


class InputRows:
    """The input rows of a group, received in packets.

    Args:
        channel: the connection to the host.
        kinds: types of the input columns.

    Raises:
        HostError: the host did not send the first packet.
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
            HostError: there is no row: the group is empty.
        """
        if not self._rows:
            raise HostError(
                "F-UDF-CL-LIB-1064: Internal error: not enough nulls in packet: wanted index "
                f"{column} but have 0 elements (on 0/0 of received/completed rows"
            )
        return self._rows[self._position][column]

    def next(self) -> bool:
        """Go to the next row, and return whether there is one.

        Raises:
            HostError: the end was reached before, or the host did not send the next packet.
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
            HostError: the host did not send the next packet.
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
        self._rows = []  # if the request fails, the group has ended
        table = self._channel.exchange(kind, kind, MessageType.DONE).next
        if table is None:
            return
        try:
            rows = unpack_rows(self._kinds, table)
        except UdfProtocolError as error:
            raise HostError(str(error)) from error
        columns = list(rows.columns)
        if any("\0" in text for text in table.strings):
            for index in self._texts:
                columns[index] = [until_nul(t) if isinstance(t, str) else t for t in columns[index]]
        self._rows = list(zip(*columns, strict=True)) if columns else [()] * rows.count
        self._numbers = table.row_numbers or [0] * rows.count
        self.rows_in_group = table.rows_in_group
        self.row_number = self._numbers[0]


class OutputRows:
    """The emitted rows, sent in packets.

    Args:
        channel: the connection to the host.
        kinds: types of the output columns.
        rows: the input; each emitted row gets the number of its current row.
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
            sizes: size of each row: the sum of `sent_size` of its values.

        Raises:
            HostError: the host refused a packet.
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
        """Send the rows that were added since the last packet.

        Raises:
            HostError: the host refused the packet.
        """
        if not self._rows:
            return
        rows = Rows(len(self._rows), list(zip(*self._rows, strict=True)))
        table = pack_rows(self._kinds, rows, row_numbers=self._numbers)
        self._rows, self._numbers, self._size = [], [], 0
        self._channel.exchange(MessageType.EMIT, request=Request(MessageType.EMIT, emit=table))


# --- values as they are sent ---


def setter_error_text(kind: ColumnType) -> str:
    """Return the error text for a value that Exasol's client cannot pass from Python to C.

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
        OverflowError: the integer is out of range.
    """
    if not -INTEGERS[kind] <= value < INTEGERS[kind]:
        raise OverflowError(setter_error_text(kind))
    return value


def sent_text(value: str, kind: ColumnType) -> str:
    """Return a text as it is sent: up to its first NUL, where a C string ends.

    Args:
        value: the text.
        kind: type of the column.

    Raises:
        TypeError: the text has surrogates, which UTF-8 cannot encode.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(setter_error_text(kind)) from None
    return until_nul(value)


def until_nul(text: str) -> str:
    """Return the part of a text before its first NUL, where a C string ends.

    Args:
        text: the text.
    """
    return text.partition("\0")[0]


def sent_size(kind: ColumnType, value: WireValue) -> int:
    """Return the size of a value in bytes, as Exasol's client counts it.

    Args:
        kind: type of the column.
        value: the value as it is sent.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        return 4 + (len(value) if value.isascii() else len(value.encode()))
    return _SIZES[kind]
