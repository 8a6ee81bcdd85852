"""One request and its response: reading, sending, logging, and the effects of faults."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from mlflow_bucketfs_testing.server.request_log import RequestLog, RequestRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from mlflow_bucketfs_testing.server.faults import Fault
    from mlflow_bucketfs_testing.server.sockets import Connection

_TRICKLES_PER_S = 20


class ConnectionClosedError(Exception):
    """The connection is closed: no response can be sent."""


class Target(NamedTuple):
    """The target of a request: ``("", "")`` all buckets, ``(bucket, "")`` a bucket's listing."""

    bucket: str
    key: str


class Credentials(NamedTuple):
    """User and password of a request."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class ServerRequest:
    """One request, to read its body and send its response.

    Attributes:
        method: HTTP method.
        raw_path: path as received, percent-encoded.
        host: value of the ``Host`` header, None without one.
        local_address: address of this machine that the client is connected to.
        scheme: ``http`` or ``https``.
        credentials: those of the Basic ``Authorization`` header, None without one.
        target: bucket and key, set by the application after it has parsed the path.
        fault: fault that hits the request, set by the application; None: none.
        started: monotonic time in seconds at which the request's header was complete.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, log: RequestLog) -> None:
        self._request = Request(scope, receive)
        self._send = send
        self._log = log
        self._logged = False
        self._started_at = time.time()
        self._received_bytes = 0
        self._sent_bytes = 0
        self._status: int | None = None
        self._length: int | None = None
        self._connection: Connection = scope["state"]["connection"]
        self._raw = False
        self.started = time.monotonic()
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.host: str | None = self._request.headers.get("host")
        self.local_address: str = (scope["server"] or ("", None))[0]
        self.scheme: str = scope["scheme"]
        self.credentials = _parse_basic(self._request.headers.get("authorization"))
        self.target = Target("", "")
        self.fault: Fault | None = None

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the parts of the request's body as they are received.

        Raises:
            ConnectionClosedError: a fault reset the connection.
            starlette.requests.ClientDisconnect: the client disconnected before the end.
        """
        if self._stalls("upload"):
            await asyncio.sleep(self._fault_seconds)
        limit = None
        if self.fault and self.fault.action == "reset_on_upload":
            limit = self.fault.after_bytes or 0
        if limit == 0:
            await self._reset()
        async for data in self._request.stream():
            self._received_bytes += len(data)
            if limit is not None and self._received_bytes >= limit:
                await self._reset()
            yield data
        if limit is not None:
            await self._reset()

    async def reply(
        self, status: int, text: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Answer with a short text."""
        body = text.encode()
        if self.fault is None or self.fault.action == "status":
            # logged here, because many clients take an error from the header and ignore the body
            self._status, self._sent_bytes = status, len(body)
            self.record()
        await self.start(status, {"content-type": "text/plain", **(headers or {})}, len(body))
        await self.write(body, last=True)

    async def start(self, status: int, headers: dict[str, str], length: int | None) -> None:
        """Send the header; the caller then calls `write` for each part.

        Args:
            status: status code.
            headers: header fields without framing.
            length: length of the body in bytes; None: not sent to the client.

        Raises:
            ConnectionClosedError: a fault reset the connection.
        """
        fault = self.fault
        if fault and fault.action == "reset_before_body":
            await self._reset()
        if self._stalls("response"):
            await asyncio.sleep(self._fault_seconds)
        if fault and fault.framing == "content-length" and length is None:
            length = (fault.after_bytes or 0) + 1
        elif fault and fault.framing:
            length = length if fault.framing == "content-length" else None
        self._status = status
        self._length = length
        raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        if length is not None:
            raw_headers.append((b"content-length", b"%d" % length))
        if length == 0:
            self.record()
        self._raw = fault is not None and fault.framing == "close"
        if self._raw:
            self._connection.write_head(status, raw_headers)
        else:
            await self._send(
                {"type": "http.response.start", "status": status, "headers": raw_headers}
            )
        if self._stalls("body"):
            await asyncio.sleep(self._fault_seconds)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a part of the body.

        Args:
            data: the part.
            last: whether it is the last one; there must be exactly one such call.

        Raises:
            ConnectionClosedError: the client disconnected, or a fault ended the connection.
        """
        fault = self.fault
        if fault and fault.action == "cut_body" and fault.after_bytes is not None:
            allowed = fault.after_bytes - self._sent_bytes
            if last or len(data) >= allowed:
                await self._write(data[:allowed])
                await self._end(reset=fault.reset)
        if fault and fault.action == "trickle":
            step = max(1, fault.bytes_per_second // _TRICKLES_PER_S)
            while len(data) > step:
                await self._write(data[:step])
                data = data[step:]
                await asyncio.sleep(step / fault.bytes_per_second)
        await self._write(data, last=last)
        if last and self._raw:
            await self._end(reset=False)

    async def fail(self, text: str) -> None:
        """Answer with 500, or reset the connection if the response has begun."""
        if self._status is None:
            await self.reply(500, text)
        else:
            await self._reset()

    async def hang(self) -> None:
        """Wait without a response until the server stops."""
        await asyncio.Event().wait()

    def record(self) -> None:
        """Log the request, unless it is logged already."""
        if self._logged:
            return
        self._logged = True
        self._log.add(
            RequestRecord(
                method=self.method,
                bucket=self.target.bucket,
                key=self.target.key,
                status=self._status,
                user=self.credentials.user if self.credentials else None,
                connection=self._connection.number,
                bytes_received=self._received_bytes,
                bytes_sent=self._sent_bytes,
                path=self.raw_path.decode("ascii", "replace"),
                started=self._started_at,
                duration_s=time.monotonic() - self.started,
            )
        )

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        if not self._raw and self._connection.gone:
            raise ConnectionClosedError
        self._sent_bytes += len(data)
        # logged before the client can have the last byte, so that a test finds the record
        if last or self._sent_bytes == self._length:
            self.record()
        if self._raw:
            await self._connection.write(data)
        else:
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _end(self, *, reset: bool) -> None:
        if reset:
            await self._reset()
        self.record()
        self._connection.close()
        raise ConnectionClosedError

    async def _reset(self) -> None:
        self.record()
        await self._connection.reset()
        raise ConnectionClosedError

    def _stalls(self, at: str) -> bool:
        return self.fault is not None and self.fault.action == "stall" and self.fault.at == at

    @property
    def _fault_seconds(self) -> float:
        return self.fault.seconds if self.fault else 0.0


def _parse_basic(header: str | None) -> Credentials | None:
    """Parse an ``Authorization`` header.

    Returns:
        The credentials; None if the header is missing, of another scheme or malformed.
    """
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        return None
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        text = decoded.decode("latin-1")  # requests' encoding of str credentials
    user, colon, password = text.partition(":")
    return Credentials(user, password) if colon else None
