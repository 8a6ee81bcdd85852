"""The reference client's connection to the host: one request, one answer, and an end."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import zmq

from mlflow_bucketfs_testing.errors import UdfProtocolError
from mlflow_bucketfs_testing.udf.messages import (
    Client,
    Close,
    Codec,
    Info,
    MessageType,
    Meta,
    ProtobufCodec,
    Request,
    Response,
)

if TYPE_CHECKING:
    from typing import NoReturn

_WATCH_SECONDS = 0.1
# The code of the error for an answer of another type than the request asks for
_WRONG_ANSWER = {
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


class HostError(Exception):
    """The host ended the work, or answered with something that the protocol does not allow."""


class Channel:
    """A REQ socket to the host, which strictly alternates between request and answer.

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
            threading.Thread(target=_end_with_the_host, args=watch, daemon=True).start()

    def introduce(self) -> tuple[Info, Meta]:
        """Repeat the first request until the host answers, and return what it says of the script.

        Raises:
            HostError: The host refused, or answered with another message.
        """
        client = Request(MessageType.CLIENT, client=Client(self._address))
        while True:
            self._socket = self._open_socket()
            try:
                self._socket.send(self._codec.encode_request(client))
                answer = self._codec.decode_response(self._socket.recv())
            except zmq.Again:
                self._socket.close()
                continue
            except UdfProtocolError as error:
                raise HostError(str(error)) from error
            break
        self._connection_id = answer.connection_id
        info = self._checked(client, answer, (MessageType.INFO,)).info
        meta = self.exchange(MessageType.META).meta
        if info is None or meta is None:
            raise HostError("INFO or META came without its content")
        return info, meta

    def exchange(
        self, kind: MessageType, *expected: MessageType, request: Request | None = None
    ) -> Response:
        """Send a request and return its answer.

        Args:
            kind: type of the request.
            expected: types that the answer may have; the same as the request's by default.
            request: the request's content; None if it has none.

        Raises:
            HostError: CLOSE came, or a message of another type or connection.
        """
        sent = request or Request(kind)
        self._socket.send(
            self._codec.encode_request(replace(sent, connection_id=self._connection_id))
        )
        while True:
            try:
                data = self._socket.recv()
            except zmq.Again:  # the thread that watches the host ends an endless wait
                continue
            break
        try:
            answer = self._codec.decode_response(data)
        except UdfProtocolError as error:
            raise HostError(str(error)) from error
        return self._checked(sent, answer, expected or (kind,))

    def close(self, message: str) -> None:
        """Report an error, with which the work ends.

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
        self, request: Request, answer: Response, expected: tuple[MessageType, ...]
    ) -> Response:
        if answer.connection_id != self._connection_id:
            raise HostError(
                "F-UDF-CL-LIB-1061: Communication error: wrong connection id, expected "
                f"{self._connection_id} got {answer.connection_id}"
            )
        if answer.type in expected:
            return answer
        if answer.close is not None and answer.close.exception_message is not None:
            raise HostError(answer.close.exception_message)
        kind = MessageType(request.type)
        got = answer.type.name if isinstance(answer.type, MessageType) else answer.type
        raise HostError(
            f"F-UDF-CL-LIB-{_WRONG_ANSWER[kind]}: Wrong response type, should be "
            f"{' or '.join(f'MT_{wanted.name}' for wanted in expected)}, got MT_{got}"
        )


def _end_with_the_host(socket_path: str, parent: int) -> None:
    """End this process when the host's socket is gone, or the process that started this one."""
    woken = threading.Event()  # never: a clock that needs no other import
    while not woken.wait(_WATCH_SECONDS):
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
