"""Sockets, event loop and thread: from an ASGI application to listeners that stop promptly."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from uvicorn.config import Config
from uvicorn.server import ServerState

from mlflow_bucketfs_testing.server.connection import Connection, logger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp

# Long: a server that closes idle connections races with clients that reuse them.
_KEEP_ALIVE_S = 3600
_BACKLOG = 1024
_MAX_PORT = 65535
_LOST_ROUNDS = 100


class PortInUseError(OSError):
    """Something else listens on the port.

    Attributes:
        host: Host that was asked for.
        port: Port that was asked for.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE,
            f"{host}:{port} is in use: stop what listens there, "
            "or choose another port (0 picks a free one)",
        )
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return str(self.strerror)


class Listener(NamedTuple):
    """A bound socket, and the TLS context to serve it with (None: plain HTTP)."""

    socket: socket.socket
    context: ssl.SSLContext | None


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket.

    Args:
        host: Host name or address, IPv4 or IPv6.
        port: Port; 0 picks a free one.

    Raises:
        PortInUseError: The port is taken.
        OSError: The host cannot be resolved or is not this machine's.
        ValueError: No port has this number.
    """
    if not 0 <= port <= _MAX_PORT:  # getaddrinfo would take 70000 for 4464
        raise ValueError(f"port {port} is not between 0 and {_MAX_PORT}")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # so that a restart need not wait for the old connections' TIME_WAIT to pass
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # listen at once: two sockets with SO_REUSEADDR can both bind as long as none listens
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from exc
        raise
    return bound


class ServerThread:
    """Serves one application on several listeners, in a thread with its own event loop.

    Args:
        app: The application.
        listeners: Bound sockets; they are closed by `stop`.
        on_connection: Called in the loop with the number of each new connection.
    """

    def __init__(
        self, app: ASGIApp, listeners: Sequence[Listener], on_connection: Callable[[int], None]
    ) -> None:
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._listeners = listeners
        self._on_connection = on_connection
        self._state = ServerState()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="bucketfs-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Start serving; returns when requests are answered."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Stop serving: whatever connections exist are cut off, so this takes no time."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed already: it could not start
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 -- raised again in the caller's thread
            if not self._started.done():
                self._started.set_exception(exc)

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _loop, context: logger.debug("in the event loop: %s", context)
        )

        def connect() -> Connection:
            connection = Connection(self._config, self._state, {}, loop)
            self._on_connection(connection.number)
            return connection

        servers = [
            await loop.create_server(
                connect, sock=listener.socket, ssl=listener.context, backlog=_BACKLOG
            )
            for listener in self._listeners
        ]
        self._started.set_result(None)
        await self._stop.wait()
        for listener in self._listeners:
            loop.remove_reader(listener.socket)  # accepts no more
        await asyncio.sleep(0)  # what was accepted a moment ago gets its transport
        for server in servers:
            server.close()
        # All transports of the loop: asyncio has no public way (before Python 3.13) to reach
        # those whose TLS handshake is not complete, and they would be reported as not closed.
        for transport in list(getattr(loop, "_transports", {}).values()):
            transport.abort()
        for _ in range(_LOST_ROUNDS):  # until each connection has been told that it is lost
            if not self._state.connections:
                break
            await asyncio.sleep(0)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
