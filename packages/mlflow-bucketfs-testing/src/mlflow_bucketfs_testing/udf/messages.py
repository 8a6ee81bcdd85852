"""The messages between the database and Exasol's UDF client, as plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_bucketfs_testing.errors import UdfProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WireValue: TypeAlias = "str | int | float | bool | None"
"""A cell as it is sent: NUMERIC, TIMESTAMP, DATE and STRING are texts."""


class MessageType(enum.IntEnum):
    """The type of a message; most responses have the type of their request."""

    CLIENT = 1
    INFO = 2
    META = 3
    CLOSE = 4
    IMPORT = 5
    NEXT = 6
    RESET = 7
    EMIT = 8
    RUN = 9
    DONE = 10
    CLEANUP = 11
    FINISHED = 12
    PING_PONG = 13
    TRY_AGAIN = 14
    CALL = 15
    RETURN = 16
    UNDEFINED_CALL = 17


class ColumnType(enum.IntEnum):
    """The type of a column's values in messages."""

    DOUBLE = 1
    INT32 = 2
    INT64 = 3
    NUMERIC = 4
    TIMESTAMP = 5
    DATE = 6
    STRING = 7
    BOOLEAN = 8


class IterationType(enum.IntEnum):
    """The number of rows per call of ``run``: one (SCALAR, RETURNS), or any (SET, EMITS)."""

    EXACTLY_ONCE = 1
    MULTIPLE = 2


class ImportKind(enum.IntEnum):
    """The kind of object that an IMPORT requests."""

    SCRIPT_CODE = 1
    CONNECTION = 2


class SingleCall(enum.IntEnum):
    """The function of the script that the client calls instead of ``run``."""

    DEFAULT_OUTPUT_COLUMNS = 1
    VIRTUAL_SCHEMA_ADAPTER = 2
    IMPORT_SPEC = 3
    EXPORT_SPEC = 4


@dataclass(frozen=True)
class Column:
    """A column of the script's input or output.

    Attributes:
        name: the name, as written in the script.
        type: type of its values in messages.
        type_name: the SQL type, such as ``DECIMAL(18,0)``.
        size: length in characters of CHAR and VARCHAR.
        precision: digits of a DECIMAL.
        scale: digits of a DECIMAL after the point.
    """

    name: str
    type: ColumnType
    type_name: str
    size: int | None = None
    precision: int | None = None
    scale: int | None = None


@dataclass(frozen=True)
class Rows:
    """Rows, stored by column.

    Attributes:
        count: number of rows; they may have no columns.
        columns: the cells of each column, as they are sent; None for NULL.
    """

    count: int
    columns: Sequence[Sequence[WireValue]]

    def part(self, first: int, end: int) -> Rows:
        """Return the existing rows from index ``first`` up to, but not including, ``end``."""
        count = max(min(end, self.count) - first, 0)
        return Rows(count, [column[first:end] for column in self.columns])


@dataclass
class Table:
    """A packet of rows, as it is sent: the cells by type, row after row.

    A NULL is in ``nulls`` only. `pack_rows` creates a table, `unpack_rows` reads one.

    Attributes:
        rows: number of rows.
        rows_in_group: number of rows in the group; 0 in emitted rows.
        strings: values of NUMERIC, TIMESTAMP, DATE and STRING.
        nulls: one flag per cell.
        bools: values of BOOLEAN.
        int32: values of INT32.
        int64: values of INT64.
        doubles: values of DOUBLE.
        row_numbers: one per row; an emitted row has that of its input row.
    """

    rows: int
    rows_in_group: int = 0
    strings: list[str] = field(default_factory=list)
    nulls: list[bool] = field(default_factory=list)
    bools: list[bool] = field(default_factory=list)
    int32: list[int] = field(default_factory=list)
    int64: list[int] = field(default_factory=list)
    doubles: list[float] = field(default_factory=list)
    row_numbers: list[int] = field(default_factory=list)


_CELLS = {
    ColumnType.DOUBLE: "doubles",
    ColumnType.INT32: "int32",
    ColumnType.INT64: "int64",
    ColumnType.BOOLEAN: "bools",
}  # the list of a table that holds the cells of a column; `strings` for all other types
TABLE_CELLS = ("strings", *_CELLS.values())
"""The lists of a table that hold cells."""


def _lists(kinds: Sequence[ColumnType]) -> dict[str, list[int]]:
    """Return the indexes of the columns in each list of a table, by the name of the list."""
    lists: dict[str, list[int]] = {}
    for column, kind in enumerate(kinds):
        lists.setdefault(_CELLS.get(kind, "strings"), []).append(column)
    return lists


def pack_rows(
    kinds: Sequence[ColumnType],
    rows: Rows,
    *,
    rows_in_group: int = 0,
    row_numbers: Iterable[int] = (),
) -> Table:
    """Convert rows to a table.

    Args:
        kinds: the types of the columns.
        rows: the rows.
        rows_in_group: number of rows in the group.
        row_numbers: one per row.
    """
    table = Table(rows.count, rows_in_group, row_numbers=list(row_numbers))
    table.nulls = [False] * (rows.count * len(kinds))
    # Slices interleave complete columns: faster than a loop over the cells
    for name, columns in _lists(kinds).items():
        cells: list[Any] = [None] * (rows.count * len(columns))
        has_null = False
        for offset, column in enumerate(columns):
            values = rows.columns[column]
            cells[offset :: len(columns)] = values
            if None in values:
                has_null = True
                table.nulls[column :: len(kinds)] = [value is None for value in values]
        setattr(table, name, [c for c in cells if c is not None] if has_null else cells)
    return table


def unpack_rows(kinds: Sequence[ColumnType], table: Table) -> Rows:
    """Convert a table to rows.

    Args:
        kinds: the types of the columns.
        table: the received table.

    Raises:
        UdfProtocolError: the table has more or fewer cells than its rows and columns need.
    """
    if len(table.nulls) != table.rows * len(kinds):
        raise UdfProtocolError(
            f"received a table of {table.rows} rows and {len(kinds)} columns with "
            f"{len(table.nulls)} NULL flags; expected one per cell"
        )
    lists = _lists(kinds)
    found: list[Sequence[WireValue]] = [()] * len(kinds)
    for name in TABLE_CELLS:
        columns = lists.get(name, [])
        cells = getattr(table, name)
        nulls = [False] * (table.rows * len(columns))
        for offset, column in enumerate(columns):
            nulls[offset :: len(columns)] = table.nulls[column :: len(kinds)]
        missing = nulls.count(True)
        if len(cells) != len(nulls) - missing:
            raise UdfProtocolError(
                f"received a table of {table.rows} rows with {len(cells)} {name}; its columns "
                f"{', '.join(kind.name for kind in kinds)} need {len(nulls) - missing}"
            )
        if missing:
            next_cell = iter(cells).__next__
            cells = [None if null else next_cell() for null in nulls]
        for offset, column in enumerate(columns):
            found[column] = cells[offset :: len(columns)]
    return Rows(table.rows, found)


@dataclass(frozen=True)
class Client:
    """The name and meta information of a client (CLIENT)."""

    name: str
    meta_info: str | None = None


@dataclass(frozen=True)
class Info:
    """The description of script, session and database for the client (INFO).

    Attributes:
        script_name: name of the script.
        source_code: the code after ``AS`` in the script.
        script_schema: the script's schema.
        database_name: name of the database.
        database_version: its version.
        session_id: number of the session.
        statement_id: number of the statement in the session.
        node_count: number of nodes.
        node_id: number of this node, from 0.
        vm_id: number of the client's process.
        memory_limit: bytes that the client may use; 0 for no limit.
        meta_info: the client's `Client.meta_info`.
        current_user: user of the session.
        current_schema: schema of the session.
        scope_user: user whose rights the script has.
    """

    script_name: str
    source_code: str
    script_schema: str
    database_name: str
    database_version: str
    session_id: int
    statement_id: int
    node_count: int
    node_id: int
    vm_id: int
    memory_limit: int
    meta_info: str | None = None
    current_user: str | None = None
    current_schema: str | None = None
    scope_user: str | None = None


@dataclass(frozen=True)
class Meta:
    """The description of the script's input and output for the client (META).

    Attributes:
        input_iteration: EXACTLY_ONCE for SCALAR, MULTIPLE for SET.
        output_iteration: EXACTLY_ONCE for RETURNS, MULTIPLE for EMITS.
        input_columns: the parameters.
        output_columns: the columns that are returned or emitted.
        single_call: whether a `SingleCall` follows instead of rows.
    """

    input_iteration: IterationType
    output_iteration: IterationType
    input_columns: tuple[Column, ...]
    output_columns: tuple[Column, ...]
    single_call: bool = False


@dataclass(frozen=True)
class Close:
    """The end of a session because of an error (CLOSE)."""

    exception_message: str | None = None


@dataclass(frozen=True)
class ImportRequest:
    """A request for the code of a script, or for a connection (IMPORT)."""

    name: str
    kind: ImportKind = ImportKind.SCRIPT_CODE


@dataclass(frozen=True)
class Connection:
    """A connection object of the database."""

    kind: str
    address: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class ImportResponse:
    """The requested code or connection, or the error if it does not exist (IMPORT)."""

    source_code: str | None = None
    exception_message: str | None = None
    connection: Connection | None = None


@dataclass(frozen=True)
class Call:
    """The function to call in the script (CALL), and its argument as JSON."""

    function: SingleCall
    json_argument: str | None = None


@dataclass(frozen=True)
class Request:
    """A message of the client.

    Attributes:
        type: its type; a number that the protocol does not define stays an int.
        connection_id: 0 in the first request, then that of the host's response.
        client: content of CLIENT.
        close: content of CLOSE.
        import_request: content of IMPORT.
        emit: content of EMIT, the rows.
        ping: content of PING_PONG, the client's meta information.
        call_result: content of RETURN.
        undefined_call: content of UNDEFINED_CALL, the name of the missing function.
    """

    type: MessageType | int
    connection_id: int = 0
    client: Client | None = None
    close: Close | None = None
    import_request: ImportRequest | None = None
    emit: Table | None = None
    ping: str | None = None
    call_result: str | None = None
    undefined_call: str | None = None


@dataclass(frozen=True)
class Response:
    """A message of the host.

    Attributes:
        type: its type; a number that the protocol does not define stays an int.
        connection_id: the same in all messages to a client.
        info: content of INFO.
        meta: content of META.
        close: content of CLOSE.
        import_response: content of IMPORT.
        next: content of NEXT and RESET, the rows.
        ping: content of PING_PONG, that of the request.
        call: content of CALL.
    """

    type: MessageType | int
    connection_id: int
    info: Info | None = None
    meta: Meta | None = None
    close: Close | None = None
    import_response: ImportResponse | None = None
    next: Table | None = None
    ping: str | None = None
    call: Call | None = None
