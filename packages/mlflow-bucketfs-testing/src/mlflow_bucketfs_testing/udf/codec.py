"""The encoding of the messages between the database and Exasol's UDF client.

`Codec` is the interface to a message's bytes. `ProtobufCodec` implements version 1 of the
protocol, which every script-language container uses. Its descriptors are built here from the
field numbers, so there are no generated files.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mlflow_bucketfs_testing.errors import UdfProtocolError
from mlflow_bucketfs_testing.udf.messages import (
    Call,
    Client,
    Close,
    Column,
    ColumnType,
    Connection,
    ImportKind,
    ImportRequest,
    ImportResponse,
    Info,
    IterationType,
    MessageType,
    Meta,
    Request,
    Response,
    SingleCall,
    Table,
)


class Codec(Protocol):
    """An encoding of messages as bytes, one message per ZeroMQ frame.

    The methods that decode raise `UdfProtocolError` for bytes that are not a valid message.
    """

    def encode_request(self, request: Request) -> bytes:
        """Encode a client's message."""
        ...

    def decode_request(self, data: bytes) -> Request:
        """Decode a client's message."""
        ...

    def encode_response(self, response: Response) -> bytes:
        """Encode a host's message."""
        ...

    def decode_response(self, data: bytes) -> Response:
        """Decode a host's message."""
        ...


class ProtobufCodec:
    """Version 1 of the protocol: protobuf messages."""

    def encode_request(self, request: Request) -> bytes:
        """Encode a client's message."""
        message = _new("request", type=request.type, connection_id=request.connection_id)
        if request.client is not None:
            message.client.client_name = request.client.name
            _set(message.client, meta_info=request.client.meta_info)
        _put_close(message, request.close)
        if request.import_request is not None:
            message.import_.script_name = request.import_request.name
            message.import_.kind = request.import_request.kind
        if request.emit is not None:
            _put_table(message.emit.table, request.emit)
        if request.ping is not None:
            message.ping.meta_info = request.ping
        if request.call_result is not None:
            message.call_result.result = request.call_result
        if request.undefined_call is not None:
            message.undefined_call.remote_fn = request.undefined_call
        return _encoded(message)

    def decode_request(self, data: bytes) -> Request:
        """Decode a client's message."""
        message = _decoded("request", data)
        return Request(
            type=_message_type(message.type),
            connection_id=message.connection_id,
            client=Client(message.client.client_name, _get(message.client, "meta_info"))
            if message.HasField("client")
            else None,
            close=_close(message),
            import_request=_import_request(message.import_)
            if message.HasField("import_")
            else None,
            emit=_table(message.emit.table) if message.HasField("emit") else None,
            ping=message.ping.meta_info if message.HasField("ping") else None,
            call_result=message.call_result.result if message.HasField("call_result") else None,
            undefined_call=message.undefined_call.remote_fn
            if message.HasField("undefined_call")
            else None,
        )

    def encode_response(self, response: Response) -> bytes:
        """Encode a host's message."""
        message = _new("response", type=response.type, connection_id=response.connection_id)
        if response.info is not None:
            _set(message.info, **{name: getattr(response.info, name) for name in _INFO_FIELDS})
        if response.meta is not None:
            _put_meta(message.meta, response.meta)
        _put_close(message, response.close)
        if response.import_response is not None:
            _put_import_response(message.import_, response.import_response)
        if response.next is not None:
            _put_table(message.next.table, response.next)
        if response.ping is not None:
            message.ping.meta_info = response.ping
        if response.call is not None:
            message.call.fn = response.call.function
            _set(message.call, json_arg=response.call.json_argument)
        return _encoded(message)

    def decode_response(self, data: bytes) -> Response:
        """Decode a host's message."""
        message = _decoded("response", data)
        return Response(
            type=_message_type(message.type),
            connection_id=message.connection_id,
            info=Info(**{name: _get(message.info, name) for name in _INFO_FIELDS})
            if message.HasField("info")
            else None,
            meta=_meta(message.meta) if message.HasField("meta") else None,
            close=_close(message),
            import_response=_import_response(message.import_)
            if message.HasField("import_")
            else None,
            next=_table(message.next.table) if message.HasField("next") else None,
            ping=message.ping.meta_info if message.HasField("ping") else None,
            call=Call(_enum(SingleCall, message.call.fn), _get(message.call, "json_arg"))
            if message.HasField("call")
            else None,
        )


# --- from values to protobuf messages and back ---------------------------------------------------


def _put_close(message: Any, close: Close | None) -> None:
    if close is not None:
        message.close.SetInParent()  # so that a CLOSE without a text has the field
        _set(message.close, exception_message=close.exception_message)


def _close(message: Any) -> Close | None:
    if not message.HasField("close"):
        return None
    return Close(_get(message.close, "exception_message"))


def _put_meta(message: Any, meta: Meta) -> None:
    message.input_iter_type = meta.input_iteration
    message.output_iter_type = meta.output_iteration
    message.single_call_mode = meta.single_call
    for target, columns in (
        (message.input_columns, meta.input_columns),
        (message.output_columns, meta.output_columns),
    ):
        for column in columns:
            _set(target.add(), **{name: getattr(column, name) for name in _COLUMN_FIELDS})


def _meta(message: Any) -> Meta:
    return Meta(
        input_iteration=_enum(IterationType, message.input_iter_type),
        output_iteration=_enum(IterationType, message.output_iter_type),
        input_columns=tuple(map(_column, message.input_columns)),
        output_columns=tuple(map(_column, message.output_columns)),
        single_call=message.single_call_mode,
    )


def _column(message: Any) -> Column:
    values = {name: _get(message, name) for name in _COLUMN_FIELDS}
    return Column(**{**values, "type": _enum(ColumnType, message.type)})


def _import_request(message: Any) -> ImportRequest:
    kind = _get(message, "kind")
    if kind is None:
        return ImportRequest(message.script_name)
    return ImportRequest(message.script_name, _enum(ImportKind, kind))


def _put_import_response(message: Any, response: ImportResponse) -> None:
    message.SetInParent()
    _set(message, source_code=response.source_code, exception_message=response.exception_message)
    if response.connection is not None:
        names = ("kind", "address", "user", "password")
        _set(message.connection, **{name: getattr(response.connection, name) for name in names})


def _import_response(message: Any) -> ImportResponse:
    known = message.connection
    return ImportResponse(
        source_code=_get(message, "source_code"),
        exception_message=_get(message, "exception_message"),
        connection=Connection(known.kind, known.address, known.user, known.password)
        if message.HasField("connection")
        else None,
    )


def _put_table(message: Any, table: Table) -> None:
    message.rows = table.rows
    message.rows_in_group = table.rows_in_group
    for name in _TABLE_LISTS:
        getattr(message, name).extend(getattr(table, name))


def _table(message: Any) -> Table:
    lists = {name: list(getattr(message, name)) for name in _TABLE_LISTS}
    return Table(rows=message.rows, rows_in_group=message.rows_in_group, **lists)


def _new(name: str, **values: int) -> Any:
    message = _message_classes()[name]()
    _set(message, **values)
    return message


def _set(message: Any, **values: str | int | None) -> None:
    for name, value in values.items():
        if value is not None:
            setattr(message, name, value)


def _get(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _decoded(name: str, data: bytes) -> Any:
    message = _message_classes()[name]()
    try:
        message.ParseFromString(data)
        missing = ", ".join(message.FindInitializationErrors())
        reason = f"without {missing}" if missing else None
    except DecodeError as error:
        reason = str(error)
    if reason is not None:
        shown = data[:40].hex(" ") + (" ..." if len(data) > 40 else "")  # noqa: PLR2004 -- a line
        raise UdfProtocolError(
            f"received {len(data)} bytes that are not a {name} of the protocol's version 1 "
            f"({reason}): {shown or 'an empty frame'}"
        )
    return message


def _message_type(number: int) -> MessageType | int:
    try:
        return MessageType(number)
    except ValueError:
        return number  # the session or the channel reports it with the expected types


def _enum(kind: type[Any], number: int) -> Any:
    try:
        return kind(number)
    except ValueError:
        known = ", ".join(f"{value.value} {value.name}" for value in kind)
        raise UdfProtocolError(
            f"received {kind.__name__} {number}, which the protocol does not define; expected one "
            f"of {known}"
        ) from None


# --- the descriptors -----------------------------------------------------------------------------

_PACKAGE = "mlflow_bucketfs_testing.udf"

# Message → field → number, label and type: `!` is required, `?` optional, `*` repeated, `#`
# repeated and packed; the type is another message or a scalar. Enumerations are encoded like
# int32 and declared as such, so that an unknown number is decoded and can be reported.
_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "client": {"client_name": (1, "!string"), "meta_info": (2, "?string")},
    "info": {
        "database_name": (1, "!string"),
        "database_version": (2, "!string"),
        "script_name": (3, "!string"),
        "source_code": (4, "!string"),
        "session_id": (5, "!uint64"),
        "statement_id": (6, "!uint32"),
        "node_count": (7, "!uint32"),
        "node_id": (8, "!uint32"),
        "vm_id": (9, "!uint64"),
        "memory_limit": (11, "!uint64"),
        "meta_info": (12, "?string"),
        "script_schema": (13, "!string"),
        "current_user": (14, "?string"),
        "current_schema": (15, "?string"),
        "scope_user": (16, "?string"),
    },
    "column": {
        "name": (1, "!string"),
        "type": (2, "?int32"),
        "type_name": (3, "!string"),
        "size": (4, "?uint32"),
        "precision": (5, "?uint32"),
        "scale": (6, "?uint32"),
    },
    "meta": {
        "input_iter_type": (1, "!int32"),
        "output_iter_type": (2, "!int32"),
        "input_columns": (3, "*column"),
        "output_columns": (4, "*column"),
        "single_call_mode": (5, "!bool"),
    },
    "table": {
        "rows": (1, "!uint64"),
        "strings": (2, "*string"),
        "nulls": (3, "#bool"),
        "bools": (4, "#bool"),
        "int32": (5, "#int32"),
        "int64": (6, "#int64"),
        "doubles": (7, "#double"),
        "rows_in_group": (8, "!uint64"),
        "row_numbers": (9, "#uint64"),
    },
    "rows": {"table": (2, "!table")},
    "close": {"exception_message": (1, "?string")},
    "ping": {"meta_info": (1, "!string")},
    "import_request": {"script_name": (1, "!string"), "kind": (2, "?int32")},
    "connection": {
        "kind": (1, "!string"),
        "address": (2, "!string"),
        "user": (3, "!string"),
        "password": (4, "!string"),
    },
    "import_response": {
        "source_code": (1, "?string"),
        "exception_message": (2, "?string"),
        "connection": (3, "?connection"),
    },
    "call_result": {"result": (1, "!string")},
    "undefined_call": {"remote_fn": (1, "!string")},
    # 2 and 4 are the specifications of IMPORT FROM SCRIPT and EXPORT INTO SCRIPT: not used here
    "call": {"fn": (1, "!int32"), "json_arg": (3, "?string")},
    "request": {
        "type": (1, "!int32"),
        "connection_id": (2, "!uint64"),
        "client": (3, "?client"),
        "close": (5, "?close"),
        "import_": (6, "?import_request"),
        "emit": (7, "?rows"),
        "ping": (8, "?ping"),
        "call_result": (9, "?call_result"),
        "undefined_call": (10, "?undefined_call"),
    },
    "response": {
        "type": (1, "!int32"),
        "connection_id": (2, "!uint64"),
        "client": (3, "?client"),
        "info": (4, "?info"),
        "meta": (5, "?meta"),
        "close": (6, "?close"),
        "import_": (7, "?import_response"),
        "next": (8, "?rows"),
        "ping": (9, "?ping"),
        "call": (10, "?call"),
    },
}
_INFO_FIELDS = tuple(_FIELDS["info"])
_COLUMN_FIELDS = tuple(_FIELDS["column"])
_TABLE_LISTS = tuple(name for name, (_, kind) in _FIELDS["table"].items() if kind[0] in "*#")


@cache
def _message_classes() -> dict[str, Any]:
    """Build the classes of the messages, in their own descriptor pool."""
    field_type = descriptor_pb2.FieldDescriptorProto
    labels = {
        "!": field_type.LABEL_REQUIRED,
        "?": field_type.LABEL_OPTIONAL,
        "*": field_type.LABEL_REPEATED,
        "#": field_type.LABEL_REPEATED,
    }
    file = descriptor_pb2.FileDescriptorProto(name="udf.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label, type_name = kind[0], kind[1:]
            added = message.field.add(name=field_name, number=number, label=labels[label])
            if type_name in _FIELDS:
                added.type = field_type.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{type_name}"
            else:
                added.type = field_type.Type.Value(f"TYPE_{type_name.upper()}")
            if label == "#":
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }
