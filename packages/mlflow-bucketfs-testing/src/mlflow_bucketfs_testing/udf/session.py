"""The database's side of a session with one UDF client, the process that runs the script.

`Session.answer` maps each request to its response, and collects the rows that the script emits.
The caller sends and receives.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_bucketfs_testing.errors import UdfProtocolError, is_about_udf
from mlflow_bucketfs_testing.udf.messages import (
    Call,
    Connection,
    ImportKind,
    ImportRequest,
    ImportResponse,
    IterationType,
    MessageType,
    Request,
    Response,
    pack_rows,
    unpack_rows,
)
from mlflow_bucketfs_testing.udf.values import python_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_bucketfs_testing.udf.messages import Info, Meta, Rows
    from mlflow_bucketfs_testing.udf.script import ScriptColumn

__tracebackhide__ = is_about_udf

_T = TypeVar("_T")

_CONNECTION_ID = 4711
_CONNECTION_KIND = "password"  # the only kind that Exasol has


@dataclass(frozen=True)
class Work:
    """The work for a client: rows in groups, or a single call of one function, without rows.

    Attributes:
        groups: the rows of each group; empty for a single call.
        call: the single call; None for rows.
        packet_rows: largest number of rows in a packet.
        connections: name → address, user, password.
        scripts: name → source code.
    """

    groups: Sequence[Rows] = ()
    call: Call | None = None
    packet_rows: int = 1000
    connections: Mapping[str, tuple[str, str, str]] = field(default_factory=dict, repr=False)
    scripts: Mapping[str, str] = field(default_factory=dict)


@enum.unique
class _State(enum.Enum):
    """A state of a session; its value has the messages that the client may send next."""

    NEW = (MessageType.CLIENT,)
    # a client repeats its first message until it is answered
    INTRODUCED = (MessageType.META, MessageType.CLIENT)
    BETWEEN = (MessageType.RUN,)
    IN_GROUP = (MessageType.NEXT, MessageType.RESET, MessageType.EMIT, MessageType.DONE)
    IN_CALL = (MessageType.RETURN, MessageType.UNDEFINED_CALL)
    AFTER_CALL = (MessageType.DONE,)
    ENDING = (MessageType.FINISHED,)
    FINISHED = ()


_ALWAYS = (MessageType.IMPORT, MessageType.PING_PONG, MessageType.CLOSE)


class Session:
    """The session with one client, from its first message to its last.

    Args:
        info: describes script and database to the client.
        meta: describes input and output columns to the client.
        outputs: the output columns of the script.
        work: the work for the client.

    Attributes:
        groups: the rows that the script emitted, for each group of input rows, as Python values.
        call_result: the result of a single call.
        undefined_call: name of the single call's function, if the script does not define it.
        failure: the exception's text, if the client reported one.
    """

    def __init__(self, info: Info, meta: Meta, outputs: Sequence[ScriptColumn], work: Work) -> None:
        self.groups: list[list[tuple[Any, ...]]] = []
        self.call_result: str | None = None
        self.undefined_call: str | None = None
        self.failure: str | None = None
        self._info = info
        self._meta = meta
        self._outputs = outputs
        self._work = work
        self._state = _State.NEW
        self._input_kinds = [column.type for column in meta.input_columns]
        self._output_kinds = [column.type for column in meta.output_columns]
        self._next_row = 0  # of the current group
        self._first_row = 0  # of the current run; 0, unless the client ended one early
        self._called = False
        self._handlers: dict[MessageType, Callable[[Request], Response]] = {
            MessageType.CLIENT: self._introduce,
            MessageType.META: self._describe,
            MessageType.RUN: self._run,
            MessageType.NEXT: self._next,
            MessageType.RESET: self._reset,
            MessageType.EMIT: self._emit,
            MessageType.DONE: self._done,
            MessageType.RETURN: self._return,
            MessageType.UNDEFINED_CALL: self._undefined,
            MessageType.IMPORT: self._import,
            MessageType.PING_PONG: self._ping,
            MessageType.CLOSE: self._close,
            MessageType.FINISHED: self._finish,
        }

    @property
    def finished(self) -> bool:
        """Whether the client has sent its last message."""
        return self._state is _State.FINISHED

    @property
    def expected(self) -> str:
        """The types of message that the client may send now, as text for errors."""
        return ", ".join(kind.name for kind in self._allowed()) or "no further message"

    def _allowed(self) -> tuple[MessageType, ...]:
        return () if self.finished else (*self._state.value, *_ALWAYS)

    def answer(self, request: Request) -> Response:
        """Return the response to a request.

        Args:
            request: the client's message.

        Raises:
            UdfProtocolError: the protocol does not allow this message now, or not in this form.
            UdfError: an emitted value does not fit its column.
        """
        kind = request.type
        if not isinstance(kind, MessageType):
            raise UdfProtocolError(f"received message type {kind}; expected {self.expected}")
        if kind not in self._allowed():
            raise UdfProtocolError(f"received {kind.name}; expected {self.expected}")
        wanted = 0 if kind is MessageType.CLIENT else _CONNECTION_ID
        if request.connection_id != wanted and self._state is not _State.NEW:
            raise UdfProtocolError(
                f"received {kind.name} with connection id {request.connection_id}; expected "
                f"{wanted}"
            )
        return self._handlers[kind](request)

    # --- beginning and end ---

    def _introduce(self, request: Request) -> Response:
        client = _require_body(request.client, "CLIENT", "the client's name")
        self._state = _State.INTRODUCED
        return _response(
            MessageType.INFO, info=dataclasses.replace(self._info, meta_info=client.meta_info)
        )

    def _describe(self, _: Request) -> Response:
        self._state = _State.BETWEEN
        return _response(MessageType.META, meta=self._meta)

    def _run(self, _: Request) -> Response:
        if self._work.call is not None and not self._called:
            self._called = True
            self._state = _State.IN_CALL
            return _response(MessageType.CALL, call=self._work.call)
        if self._first_row or len(self.groups) < len(self._work.groups):
            if not self._first_row:
                self.groups.append([])
            self._next_row = self._first_row
            self._state = _State.IN_GROUP
            return _response(MessageType.RUN)
        self._state = _State.ENDING
        return _response(MessageType.CLEANUP)

    def _finish(self, _: Request) -> Response:
        self._state = _State.FINISHED
        return _response(MessageType.FINISHED)

    def _close(self, request: Request) -> Response:
        message = _require_body(request.close, "CLOSE", "the exception").exception_message
        self.failure = message or "the client reported an error without a text"
        return self._finish(request)

    # --- rows ---

    def _next(self, _: Request) -> Response:
        return self._packet(MessageType.NEXT)

    def _reset(self, _: Request) -> Response:
        self._next_row = 0
        return self._packet(MessageType.RESET)

    def _packet(self, kind: MessageType) -> Response:
        group = self._work.groups[len(self.groups) - 1]
        first, self._next_row = self._next_row, self._next_row + self._work.packet_rows
        rows = group.part(first, self._next_row)
        if not rows.count:
            return _response(MessageType.DONE)
        numbers = range(first, first + rows.count)
        table = pack_rows(self._input_kinds, rows, rows_in_group=group.count, row_numbers=numbers)
        return _response(kind, next=table)

    def _emit(self, request: Request) -> Response:
        table = _require_body(request.emit, "EMIT", "rows")
        emitted = self.groups[-1]
        rows = unpack_rows(self._output_kinds, table)
        columns = python_columns(rows.columns, self._outputs, first=len(emitted) + 1)
        emitted += zip(*columns, strict=True)
        return _response(MessageType.EMIT)

    def _done(self, _: Request) -> Response:
        self._state = _State.BETWEEN
        if self._work.call is not None or (
            self._meta.output_iteration is not IterationType.EXACTLY_ONCE
        ):
            return _response(MessageType.DONE)
        wanted, returned = 1, len(self.groups[-1])
        if self._meta.input_iteration is IterationType.EXACTLY_ONCE:
            wanted = self._work.groups[len(self.groups) - 1].count
            if self._first_row < returned < wanted:
                # the client ends a run when the returned rows fill a packet: the next run gets
                # the other rows
                self._first_row = returned
                return _response(MessageType.DONE)
        if returned != wanted:
            raise UdfProtocolError(
                f"received DONE after {returned} rows of a script that RETURNS; expected {wanted}"
            )
        self._first_row = 0
        return _response(MessageType.DONE)

    # --- single calls ---

    def _return(self, request: Request) -> Response:
        if request.call_result is None:
            raise UdfProtocolError("received RETURN without a result; expected one")
        self.call_result = request.call_result
        self._state = _State.AFTER_CALL
        return _response(MessageType.RETURN)

    def _undefined(self, request: Request) -> Response:
        if request.undefined_call is None:
            raise UdfProtocolError("received UNDEFINED_CALL without a name; expected one")
        self.undefined_call = request.undefined_call
        self._state = _State.AFTER_CALL
        return _response(MessageType.UNDEFINED_CALL)

    # --- at any time ---

    def _ping(self, request: Request) -> Response:
        return _response(MessageType.PING_PONG, ping=request.ping or "")

    def _import(self, request: Request) -> Response:
        asked = _require_body(request.import_request, "IMPORT", "a name")
        return _response(MessageType.IMPORT, import_response=self._imported(asked))

    def _imported(self, asked: ImportRequest) -> ImportResponse:
        if asked.kind is ImportKind.CONNECTION:
            known = _named(self._work.connections, asked.name)
            if known is None:
                return ImportResponse(exception_message=f"connection {asked.name} does not exist")
            return ImportResponse(connection=Connection(_CONNECTION_KIND, *known))
        code = _named(self._work.scripts, asked.name)
        if code is None:
            return ImportResponse(exception_message=f"script {asked.name} does not exist")
        return ImportResponse(source_code=code)


def _response(kind: MessageType, **body: Any) -> Response:
    return Response(kind, _CONNECTION_ID, **body)


def _require_body(body: _T | None, kind: str, what: str) -> _T:
    if body is None:
        raise UdfProtocolError(f"received {kind} without {what}; expected it")
    return body


def _named(known: Mapping[str, _T], name: str) -> _T | None:
    """Find a value by its exact name, or by its name in upper case, like an unquoted SQL name."""
    return known.get(name, known.get(name.upper()))
