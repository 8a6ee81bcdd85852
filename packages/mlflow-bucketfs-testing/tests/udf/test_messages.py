"""Messages, their encoding in both directions, and the encoded bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_testing.errors import UdfProtocolError
from mlflow_bucketfs_testing.udf.codec import ProtobufCodec
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
    Rows,
    SingleCall,
    Table,
    pack_rows,
    unpack_rows,
)

_CODEC = ProtobufCodec()
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_U32 = st.integers(0, 2**32 - 1)
_U64 = st.integers(0, 2**64 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_INT32 = st.integers(-(2**31), 2**31 - 1)
_VALUES = {
    ColumnType.DOUBLE: st.floats(allow_nan=False),
    ColumnType.INT32: _INT32,
    ColumnType.INT64: _INT64,
    ColumnType.NUMERIC: st.decimals(allow_nan=False, allow_infinity=False).map(str),
    ColumnType.TIMESTAMP: st.datetimes().map(str),
    ColumnType.DATE: st.dates().map(str),
    ColumnType.STRING: _TEXT,
    ColumnType.BOOLEAN: st.booleans(),
}
_TYPES = st.sampled_from(MessageType)
_TABLES = st.builds(
    Table,
    rows=_U64,
    rows_in_group=_U64,
    strings=st.lists(_TEXT),
    nulls=st.lists(st.booleans()),
    bools=st.lists(st.booleans()),
    int32=st.lists(_INT32),
    int64=st.lists(_INT64),
    doubles=st.lists(st.floats(allow_nan=False)),
    row_numbers=st.lists(_U64),
)
_COLUMNS = st.builds(
    Column,
    name=_TEXT,
    type=st.sampled_from(ColumnType),
    type_name=_TEXT,
    size=st.none() | _U32,
    precision=st.none() | _U32,
    scale=st.none() | _U32,
)
_CLOSES = st.builds(Close, st.none() | _TEXT)
_CONNECTIONS = st.builds(Connection, _TEXT, _TEXT, _TEXT, _TEXT)
_REQUESTS = st.builds(
    Request,
    type=_TYPES,
    connection_id=_U64,
    client=st.none() | st.builds(Client, _TEXT, st.none() | _TEXT),
    close=st.none() | _CLOSES,
    import_request=st.none() | st.builds(ImportRequest, _TEXT, st.sampled_from(ImportKind)),
    emit=st.none() | _TABLES,
    ping=st.none() | _TEXT,
    call_result=st.none() | _TEXT,
    undefined_call=st.none() | _TEXT,
)
_INFOS = st.builds(
    Info,
    script_name=_TEXT,
    source_code=_TEXT,
    script_schema=_TEXT,
    database_name=_TEXT,
    database_version=_TEXT,
    session_id=_U64,
    statement_id=_U32,
    node_count=_U32,
    node_id=_U32,
    vm_id=_U64,
    memory_limit=_U64,
    meta_info=st.none() | _TEXT,
    current_user=st.none() | _TEXT,
    current_schema=st.none() | _TEXT,
    scope_user=st.none() | _TEXT,
)
_METAS = st.builds(
    Meta,
    input_iteration=st.sampled_from(IterationType),
    output_iteration=st.sampled_from(IterationType),
    input_columns=st.lists(_COLUMNS, max_size=3).map(tuple),
    output_columns=st.lists(_COLUMNS, max_size=3).map(tuple),
    single_call=st.booleans(),
)
_RESPONSES = st.builds(
    Response,
    type=_TYPES,
    connection_id=_U64,
    info=st.none() | _INFOS,
    meta=st.none() | _METAS,
    close=st.none() | _CLOSES,
    import_response=st.none()
    | st.builds(ImportResponse, st.none() | _TEXT, st.none() | _TEXT, st.none() | _CONNECTIONS),
    next=st.none() | _TABLES,
    ping=st.none() | _TEXT,
    call=st.none() | st.builds(Call, st.sampled_from(SingleCall), st.none() | _TEXT),
)


@given(_REQUESTS)
def test_requests_round_trip(request):
    """A request is the same after encoding and decoding."""
    assert _CODEC.decode_request(_CODEC.encode_request(request)) == request


@given(_RESPONSES)
def test_responses_round_trip(response):
    """A response is the same after encoding and decoding."""
    assert _CODEC.decode_response(_CODEC.encode_response(response)) == response


@st.composite
def _kinds_and_rows(draw):
    kinds = draw(st.lists(st.sampled_from(ColumnType), max_size=5))
    count = draw(st.integers(0, 8))
    columns = [
        draw(st.lists(values | st.none(), min_size=count, max_size=count))
        for values in map(_VALUES.get, kinds)
    ]
    return kinds, Rows(count, columns)


@given(_kinds_and_rows())
def test_rows_round_trip(kinds_and_rows):
    """Rows of any types, with NULLs, are the same after packing and unpacking."""
    kinds, rows = kinds_and_rows
    table = pack_rows(kinds, rows)
    assert table.rows == rows.count
    assert unpack_rows(kinds, table) == rows


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        # type 1, connection 0, field 3 {1: "a"}
        (Request(MessageType.CLIENT, 0, client=Client("a")), "08 01 10 00 1a 03 0a 01 61"),
        # field 5 {1: "no"}
        (Request(MessageType.CLOSE, 7, close=Close("no")), "08 04 10 07 2a 04 0a 02 6e 6f"),
        # field 6 {1: "c", 2: 2}
        (
            Request(
                MessageType.IMPORT, 7, import_request=ImportRequest("c", ImportKind.CONNECTION)
            ),
            "08 05 10 07 32 05 0a 01 63 10 02",
        ),
        # field 7 {2 {1: rows 1, 3: nulls packed, 8: rows_in_group 0, 6: int64 packed}}
        (
            Request(MessageType.EMIT, 7, emit=pack_rows([ColumnType.INT64], Rows(1, [[5]]))),
            "08 08 10 07 3a 0c 12 0a 08 01 1a 01 00 32 01 05 40 00",
        ),
        (Request(MessageType.RETURN, 7, call_result="r"), "08 10 10 07 4a 03 0a 01 72"),
        (Request(MessageType.UNDEFINED_CALL, 7, undefined_call="f"), "08 11 10 07 52 03 0a 01 66"),
        (Request(MessageType.DONE, 300), "08 0a 10 ac 02"),
    ],
    ids=lambda value: value.type.name if isinstance(value, Request) else "",
)
def test_requests_have_the_bytes_of_the_protocol(message, wire):
    """A request is encoded as the bytes that follow from the published field numbers."""
    assert _CODEC.encode_request(message).hex(" ") == wire
    assert _CODEC.decode_request(bytes.fromhex(wire)) == message


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        # field 8 {2 {1: 1, 2: "x", 3: packed, 8: 4, 9: packed}}
        (
            Response(
                MessageType.NEXT,
                7,
                next=pack_rows(
                    [ColumnType.STRING], Rows(1, [["x"]]), rows_in_group=4, row_numbers=[0]
                ),
            ),
            "08 06 10 07 42 0f 12 0d 08 01 12 01 78 1a 01 00 40 04 4a 01 00",
        ),
        # field 7 {3 {1 kind, 2 address, 3 user, 4 password}}
        (
            Response(
                MessageType.IMPORT,
                7,
                import_response=ImportResponse(connection=Connection(*"kaup")),
            ),
            "08 05 10 07 3a 0e 1a 0c 0a 01 6b 12 01 61 1a 01 75 22 01 70",
        ),
        # field 10 {1: 2, 3: "{}"}
        (
            Response(MessageType.CALL, 7, call=Call(SingleCall.VIRTUAL_SCHEMA_ADAPTER, "{}")),
            "08 0f 10 07 52 06 08 02 1a 02 7b 7d",
        ),
        # field 5 {1: 2, 2: 1, 3 {1 name, 2 type, 3 type name, 4 size}, 5: false}
        (
            Response(
                MessageType.META,
                7,
                meta=Meta(
                    IterationType.MULTIPLE,
                    IterationType.EXACTLY_ONCE,
                    (Column("a", ColumnType.STRING, "T", size=9),),
                    (),
                ),
            ),
            "08 03 10 07 2a 12 08 02 10 01 1a 0a 0a 01 61 10 07 1a 01 54 20 09 28 00",
        ),
    ],
    ids=lambda value: value.type.name if isinstance(value, Response) else "",
)
def test_responses_have_the_bytes_of_the_protocol(message, wire):
    """A response is encoded as the bytes that follow from the published field numbers."""
    assert _CODEC.encode_response(message).hex(" ") == wire
    assert _CODEC.decode_response(bytes.fromhex(wire)) == message


def test_info_has_the_field_numbers_of_the_protocol():
    """Every field of INFO has its published number."""
    info = Info(
        script_name="N",
        source_code="c",
        script_schema="S",
        database_name="d",
        database_version="v",
        session_id=5,
        statement_id=6,
        node_count=7,
        node_id=8,
        vm_id=9,
        memory_limit=11,
        meta_info="m",
        current_user="u",
        current_schema="s",
        scope_user="o",
    )
    wire = (
        "08 02 10 07 22 28"
        " 0a 01 64 12 01 76 1a 01 4e 22 01 63 28 05 30 06 38 07 40 08 48 09 58 0b"
        " 62 01 6d 6a 01 53 72 01 75 7a 01 73 82 01 01 6f"
    )
    response = Response(MessageType.INFO, 7, info=info)
    assert _CODEC.encode_response(response).hex(" ") == wire
    assert _CODEC.decode_response(_CODEC.encode_response(response)) == response


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x01"], ids=["empty", "text", "incomplete"])
def test_bytes_that_are_no_message_are_refused(data):
    """The error has the number of bytes and the first of them."""
    with pytest.raises(UdfProtocolError, match=f"{len(data)} bytes that are not a request"):
        _CODEC.decode_request(data)


def test_an_unknown_message_type_is_decoded():
    """The type of a later protocol is decoded as its number, so that it can be reported."""
    assert _CODEC.decode_request(b"\x08\x63\x10\x07") == Request(99, 7)


def test_an_unknown_enumerator_is_refused():
    """The error has the received number and the existing ones."""
    wire = bytes.fromhex("08 05 10 07 32 05 0a 01 63 10 09")
    with pytest.raises(UdfProtocolError, match=r"received ImportKind 9, .*1 SCRIPT_CODE"):
        _CODEC.decode_request(wire)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table(rows=2, nulls=[False], int64=[1]), "2 rows and 1 columns with 1 NULL flags"),
        (
            Table(rows=1, nulls=[False], doubles=[1.0]),
            "1 rows with 1 doubles; its columns INT64 need 0",
        ),
        (Table(rows=1, nulls=[False], int64=[1], strings=["x"]), "1 strings; .* need 0"),
        (Table(rows=1, nulls=[True], int64=[1]), "1 int64; .* need 0"),
        (Table(rows=1, nulls=[False]), "0 int64; .* need 1"),
    ],
)
def test_a_table_that_does_not_fit_its_columns_is_refused(table, message):
    """Missing cells, extra cells and cells of another type are protocol errors."""
    with pytest.raises(UdfProtocolError, match=message):
        unpack_rows([ColumnType.INT64], table)
