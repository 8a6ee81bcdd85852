"""The session: from request to response, without a process."""

from __future__ import annotations

import re

import pytest
from mlflow_bucketfs_testing import UdfError, UdfProtocolError
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
    Rows,
    SingleCall,
    pack_rows,
    unpack_rows,
)
from mlflow_bucketfs_testing.udf.script import ScriptColumn, SqlType
from mlflow_bucketfs_testing.udf.session import Session, Work

_INT = SqlType("DECIMAL", 18, 0)
_INFO = Info(
    script_name="F",
    source_code="def run(ctx): pass",
    script_schema="S",
    database_name="db",
    database_version="8",
    session_id=1,
    statement_id=1,
    node_count=1,
    node_id=0,
    vm_id=1,
    memory_limit=0,
)
_ADAPTER = Call(SingleCall.VIRTUAL_SCHEMA_ADAPTER, "{}")


class Conversation:
    """A session whose input is a column of INT64, and the requests that a client sends to it."""

    def __init__(self, work, *, output=ColumnType.INT64, sql=_INT, scalar=False, returns=False):
        once, multiple = IterationType.EXACTLY_ONCE, IterationType.MULTIPLE
        meta = Meta(
            once if scalar else multiple,
            once if returns else multiple,
            (Column("x", ColumnType.INT64, "DECIMAL(18,0)"),),
            (Column("y", output, str(sql)),),
        )
        self.session = Session(_INFO, meta, [ScriptColumn("y", sql)], work)
        self.connection_id = 0

    def send(self, kind, **body):
        """Send a request, with the connection id that the session gave."""
        connection_id = 0 if kind is MessageType.CLIENT else self.connection_id
        response = self.session.answer(Request(kind, connection_id, **body))
        self.connection_id = response.connection_id
        return response

    def begin(self):
        """Send CLIENT and META."""
        self.send(MessageType.CLIENT, client=Client("ipc:///x", "m"))
        self.send(MessageType.META)
        return self

    def begin_group(self):
        """Send the requests up to the first RUN."""
        self.begin().send(MessageType.RUN)
        return self

    def rows(self, kind):
        """Request rows; return None if there are no more."""
        response = self.send(kind)
        if response.type is MessageType.DONE:
            return None
        assert response.type is kind
        return unpack_rows([ColumnType.INT64], response.next).columns[0]

    def emit(self, *values, kind=ColumnType.INT64):
        """Emit rows of one column."""
        return self.send(MessageType.EMIT, emit=pack_rows([kind], _rows(*values)))


def _rows(*values):
    return Rows(len(values), [values])


def test_groups_in_packets():
    """The client gets each group in packets; emitted rows are collected by group."""
    talk = Conversation(Work(groups=[_rows(1, 2, 3), _rows(4)], packet_rows=2))

    info = talk.send(MessageType.CLIENT, client=Client("ipc:///x", "m")).info
    assert (info.script_name, info.meta_info) == ("F", "m")
    assert talk.send(MessageType.META).meta.input_columns[0].name == "x"
    assert talk.send(MessageType.RUN).type is MessageType.RUN
    first = talk.send(MessageType.NEXT).next
    assert (first.rows, first.rows_in_group, first.row_numbers) == (2, 3, [0, 1])
    second = talk.send(MessageType.NEXT).next
    assert (second.int64, second.rows_in_group, second.row_numbers) == ([3], 3, [2])
    assert talk.rows(MessageType.NEXT) is None
    assert talk.emit(10, None).type is MessageType.EMIT
    assert talk.emit(30).type is MessageType.EMIT
    assert talk.send(MessageType.DONE).type is MessageType.DONE
    assert talk.send(MessageType.RUN).type is MessageType.RUN
    assert talk.rows(MessageType.NEXT) == [4]
    assert talk.send(MessageType.DONE).type is MessageType.DONE
    assert talk.send(MessageType.RUN).type is MessageType.CLEANUP
    assert not talk.session.finished
    assert talk.send(MessageType.FINISHED).type is MessageType.FINISHED
    assert talk.session.finished
    assert talk.session.failure is None
    assert talk.session.groups == [[(10,), (None,), (30,)], []]


def test_reset_begins_the_group_again():
    """RESET is answered with the group's first packet, and the following NEXT with the second."""
    talk = Conversation(Work(groups=[_rows(1, 2, 3)], packet_rows=2)).begin_group()

    assert talk.rows(MessageType.NEXT) == [1, 2]
    assert talk.rows(MessageType.RESET) == [1, 2]
    assert talk.rows(MessageType.NEXT) == [3]
    assert talk.rows(MessageType.NEXT) is None
    assert talk.rows(MessageType.RESET) == [1, 2]


def test_a_client_repeats_its_introduction():
    """A repeated introduction gets the same response."""
    talk = Conversation(Work(groups=[_rows(1)]))
    client = Client("ipc:///x")

    assert talk.send(MessageType.CLIENT, client=client) == talk.send(
        MessageType.CLIENT, client=client
    )
    assert talk.send(MessageType.META).type is MessageType.META


def test_an_exception_of_the_script_ends_the_conversation():
    """CLOSE is answered with FINISHED, and its text is the failure."""
    talk = Conversation(Work(groups=[_rows(1)])).begin_group()

    close = Close("F-UDF-CL-LIB-1127: no")
    assert talk.send(MessageType.CLOSE, close=close).type is MessageType.FINISHED
    assert talk.session.finished
    assert talk.session.failure == "F-UDF-CL-LIB-1127: no"


def test_an_exception_without_a_text_is_a_failure():
    """CLOSE without a text is a failure with a default text."""
    talk = Conversation(Work(groups=[_rows(1)]))
    talk.send(MessageType.CLOSE, close=Close())

    assert talk.session.failure == "the client reported an error without a text"


def test_pings_are_answered():
    """The response to a ping has the text that the client sent."""
    response = Conversation(Work(groups=[_rows(1)])).begin().send(MessageType.PING_PONG, ping="p")

    assert (response.type, response.ping) == (MessageType.PING_PONG, "p")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("lib", ImportKind.SCRIPT_CODE, ImportResponse(source_code="lower")),
        ("LIB", ImportKind.SCRIPT_CODE, ImportResponse(source_code="upper")),
        ("S.lib", ImportKind.SCRIPT_CODE, ImportResponse(source_code="schema")),
        (
            "other",
            ImportKind.SCRIPT_CODE,
            ImportResponse(exception_message="script other does not exist"),
        ),
        (
            "con",
            ImportKind.CONNECTION,
            ImportResponse(connection=Connection("password", "a", "u", "p")),
        ),
        (
            "lib",
            ImportKind.CONNECTION,
            ImportResponse(exception_message="connection lib does not exist"),
        ),
    ],
)
def test_imports(name, kind, expected):
    """Scripts and connections are found by their exact name or their name in upper case."""
    work = Work(
        groups=[_rows(1)],
        scripts={"lib": "lower", "LIB": "upper", "S.LIB": "schema"},
        connections={"CON": ("a", "u", "p")},
    )
    response = (
        Conversation(work)
        .begin_group()
        .send(MessageType.IMPORT, import_request=ImportRequest(name, kind))
    )

    assert response.import_response == expected


def test_passwords_are_not_shown():
    """Passwords are in the repr of neither the work nor the response to an import."""
    work = Work(connections={"C": ("a", "u", "secret")})

    assert "secret" not in repr(work)
    assert "secret" not in repr(Connection("password", "a", "u", "secret"))


def test_a_single_call():
    """RUN is answered with the call, and the result of the call is kept."""
    talk = Conversation(Work(call=_ADAPTER)).begin()

    assert talk.send(MessageType.RUN).call == _ADAPTER
    assert talk.send(MessageType.RETURN, call_result="{1}").type is MessageType.RETURN
    assert talk.send(MessageType.DONE).type is MessageType.DONE
    assert talk.send(MessageType.RUN).type is MessageType.CLEANUP
    assert talk.session.call_result == "{1}"


def test_a_single_call_of_a_missing_function():
    """The session has the name of the missing function."""
    talk = Conversation(Work(call=_ADAPTER)).begin()
    talk.send(MessageType.RUN)

    response = talk.send(MessageType.UNDEFINED_CALL, undefined_call="adapter_call")
    assert response.type is MessageType.UNDEFINED_CALL
    assert talk.session.undefined_call == "adapter_call"


@pytest.mark.parametrize(
    ("scalar", "emitted", "wanted"),
    [(True, [], 3), (True, [1, 2, 3, 4], 3), (False, [], 1), (False, [1, 2], 1)],
    ids=["scalar-none", "scalar-many", "set-none", "set-many"],
)
def test_a_script_that_returns_has_one_result_per_call(scalar, emitted, wanted):
    """DONE is refused unless there is one result per row (SCALAR) or per group (SET)."""
    talk = Conversation(Work(groups=[_rows(1, 2, 3)]), scalar=scalar, returns=True).begin_group()
    talk.emit(*emitted)

    with pytest.raises(UdfProtocolError, match=f"after {len(emitted)} rows .* expected {wanted}"):
        talk.send(MessageType.DONE)


def test_an_emitted_value_that_does_not_fit_its_column():
    """The error has the number of the row in its group."""
    work = Work(groups=[_rows(1)])
    talk = Conversation(work, output=ColumnType.STRING, sql=SqlType("VARCHAR", size=2))
    talk.begin_group().emit("ab", kind=ColumnType.STRING)

    with pytest.raises(UdfError, match=r"row 3, output column y: .* 'abc', .* VARCHAR\(2\)"):
        talk.emit("a", "abc", kind=ColumnType.STRING)


_STATES = {
    "new": lambda talk: talk,
    "introduced": lambda talk: talk.send(MessageType.CLIENT, client=Client("c")),
    "between": lambda talk: talk.begin(),
    "in group": lambda talk: talk.begin_group(),
    "ending": lambda talk: [
        talk.begin_group(),
        talk.send(MessageType.DONE),
        talk.send(MessageType.RUN),
    ],
    "finished": lambda talk: talk.send(MessageType.CLOSE, close=Close("no")),
}
_ALWAYS = {"IMPORT", "PING_PONG", "CLOSE"}
_ALLOWED = {
    "new": {"CLIENT"},
    "introduced": {"META", "CLIENT"},
    "between": {"RUN"},
    "in group": {"NEXT", "RESET", "EMIT", "DONE"},
    "ending": {"FINISHED"},
    "finished": set(),
}
_BODIES = {
    "CLIENT": {"client": Client("c")},
    "CLOSE": {"close": Close("no")},
    "EMIT": {"emit": pack_rows([ColumnType.INT64], _rows(1))},
    "IMPORT": {"import_request": ImportRequest("x")},
}


@pytest.mark.parametrize("kind", list(MessageType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", list(_STATES))
def test_messages_at_the_wrong_time(state, kind):
    """In each state, a message is answered, or the error names the expected messages."""
    talk = Conversation(Work(groups=[_rows(1)]))
    _STATES[state](talk)
    expected = _ALLOWED[state] | (set() if state == "finished" else _ALWAYS)

    if kind.name in expected:
        assert talk.send(kind, **_BODIES.get(kind.name, {}))
    else:
        with pytest.raises(UdfProtocolError, match=f"^received {kind.name}; expected ") as caught:
            talk.send(kind, **_BODIES.get(kind.name, {}))
        assert set(re.findall("[A-Z_]{2,}", str(caught.value))) == expected | {kind.name}


def test_a_message_of_an_unknown_type():
    """The error has the number of the unknown type."""
    with pytest.raises(UdfProtocolError, match="received message type 99; expected CLIENT, IMPORT"):
        Conversation(Work()).session.answer(Request(99))


def test_a_wrong_connection_id():
    """A message with another connection id is refused."""
    talk = Conversation(Work(groups=[_rows(1)])).begin()
    wrong = Request(MessageType.RUN, talk.connection_id + 1)

    with pytest.raises(UdfProtocolError, match=r"received RUN with connection id .* expected "):
        talk.session.answer(wrong)


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        (MessageType.EMIT, None, "received EMIT without rows"),
        (MessageType.CLOSE, None, "received CLOSE without the exception"),
        (MessageType.IMPORT, None, "received IMPORT without a name"),
        (MessageType.RETURN, _ADAPTER, "received RETURN without a result"),
        (MessageType.UNDEFINED_CALL, _ADAPTER, "received UNDEFINED_CALL without a name"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_messages_without_their_content(kind, call, message):
    """The error names the missing content."""
    talk = Conversation(Work(groups=[] if call else [_rows(1)], call=call)).begin_group()

    with pytest.raises(UdfProtocolError, match=message):
        talk.send(kind)


def test_an_introduction_without_a_client():
    """An introduction without its content is refused."""
    with pytest.raises(UdfProtocolError, match="received CLIENT without the client's name"):
        Conversation(Work()).send(MessageType.CLIENT)
