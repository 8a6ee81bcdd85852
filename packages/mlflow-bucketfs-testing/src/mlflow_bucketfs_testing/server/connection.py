"""What lies below HTTP: resets and closes, which no ASGI application can cause."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import socket
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

# Not uvicorn's own logger: that one belongs to whatever else runs uvicorn in this process. The
# null handler keeps logging's handler of last resort from printing to the console.
logger = logging.getLogger("mlflow_bucketfs_testing.server")
logger.addHandler(logging.NullHandler())

_INT = struct.Struct("i")
_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)
_FLUSH_ATTEMPTS = 200
_FLUSH_PAUSE_S = 0.005


def _unacknowledged_bytes(tcp: socket.socket) -> int:
    """Bytes that the kernel would drop with a reset; 0 where it does not tell (not Linux)."""
    with suppress(OSError):
        answer = fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        return int(_INT.unpack(answer)[0])
    return 0


class Connection(H11Protocol):
    """A connection that an application can cut off.

    The application finds it in ``scope["state"]["connection"]``.

    Attributes:
        number: Counts the connections of this process, for the request log.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.number = next(self._numbers)
        self.logger = logger
        self.access_log = False

    @property
    def gone(self) -> bool:
        """Whether the client has left, or was cut off."""
        return bool(self.cycle.disconnected)

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Start an answer whose body ends where the connection ends; go on with `write`.

        h11 writes no such answer to an HTTP/1.1 client: it would choose chunks.
        """
        self.cycle.disconnected = True  # from here on, uvicorn has no part in this answer
        head = h11.Connection(h11.SERVER)
        head.receive_data(b"GET / HTTP/1.0\r\n\r\n")
        head.next_event()
        event = h11.Response(status_code=status, headers=headers)
        self.transport.write(head.send(event) or b"")

    async def write(self, data: bytes) -> None:
        """Send a part of the body of an answer begun with `write_head`."""
        await self.flow.drain()
        self.transport.write(data)

    def close(self) -> None:
        """Close the connection in good order once everything written is sent."""
        self.cycle.disconnected = True
        self.transport.close()

    async def reset(self) -> None:
        """Reset the connection (RST) once the client's side has everything that was written.

        A client that does not read is waited for as long as a second.
        """
        self.cycle.disconnected = True
        tcp = self.transport.get_extra_info("socket")
        for _ in range(_FLUSH_ATTEMPTS):
            if self.transport.is_closing():
                return
            if not self.transport.get_write_buffer_size() and not _unacknowledged_bytes(tcp):
                break
            await asyncio.sleep(_FLUSH_PAUSE_S)
        # a socket that must not linger is reset when closed, instead of being shut down
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        # Java's HTTP client offers h2c on every plain connection; the offer is ignored without a
        # word, as BucketFS must do for bucketfs-java to work over HTTP.
        return False
