"""Connections to BucketFS: one pool per endpoint, credentials and process."""

from __future__ import annotations

import atexit
import base64
import codecs
import math
import os
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import urllib3.response

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.http.route import ROUTE_VARIABLES, open_route, speaks_tls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_bucketfs_core.http.route import Route
    from mlflow_bucketfs_core.settings import ConnectionSettings

# Idle connections kept open for streams, whose number is not limited.
_MAX_IDLE_STREAMS = 64
# Pools kept per process: endpoints in use at the same time, not requests.
_MAX_POOLS = 32
# After this time, a request opens a connection beyond the number of workers: those in use may
# belong to threads that wait for this request, or that ended with the interpreter.
_MAX_WAIT_FOR_CONNECTION_S = 60.0
# A server that answered within this time, and now accepts no connection, may be restarting. With
# a longer time, each file of a folder would wait for a server that was shut down.
_MAX_RESTART_S = 60.0

_GIB = 1 << 30
_DEFAULT_IDLE_S = 60.0
# A PUT returns only after all nodes have the bytes: about 1 s at least, about 10 s per GiB and
# extra node (measured for docker-db 2026.1.1 with 2 and 4 nodes, Polo3cat/syncfs). This is enough
# for twelve extra nodes.
_REPLICATION_S_PER_GIB = 120.0
# Whether parallel PUTs take one second together or each is not documented; assume the latter.
_S_PER_UPLOAD_IN_FLIGHT = 2.0
# The assumed length of a stream of unknown length.
_UNKNOWN_LENGTH_BYTES = 4 * _GIB

# Modules that requests import or look up late. They are kept here because nothing can be imported
# at the end of the interpreter's exit, when it deletes the variables of modules.
_IMPORTED_LATE = {
    "atexit": atexit,
    "time": time,
    "urllib3": urllib3,
    "urllib3.response": urllib3.response,
}
codecs.lookup("idna")


@dataclass(frozen=True)
class Timeouts:
    """Timeouts of requests, all in seconds; ``None`` in a result means no limit.

    Args:
        transfer_timeout_s: seconds that the user allows without progress; ``None`` for 60 s,
            infinity for no limit.
    """

    transfer_timeout_s: float | None = None

    # 4 s allow for two repetitions of a lost SYN. Three attempts, with waits, end within
    # 15 s, so that a wrong port is reported soon.
    connect_s: float = 4.0

    @property
    def idle_s(self) -> float | None:
        """Seconds without a byte, in either direction."""
        idle_s = self.transfer_timeout_s or _DEFAULT_IDLE_S
        return None if math.isinf(idle_s) else idle_s

    def upload_response_s(self, size: int | None, in_flight: int) -> float | None:
        """Return the seconds to wait for the response to a PUT after its body was sent.

        Args:
            size: bytes sent; ``None`` if not known beforehand.
            in_flight: PUTs in progress in this process, including this one.
        """
        if self.idle_s is None:
            return None
        size = _UNKNOWN_LENGTH_BYTES if size is None else size
        return (
            self.idle_s
            + _REPLICATION_S_PER_GIB * size / _GIB
            + _S_PER_UPLOAD_IN_FLIGHT * (in_flight - 1)
        )


class ServicePool:
    """Connections to one BucketFS service, with the credentials and timeouts of its requests.

    Redirects are never followed, ``.netrc`` is not read, and cookies are not kept; proxies and
    ``REQUESTS_CA_BUNDLE`` from the environment are honoured.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.
        streams: see :func:`shared_pool`.

    Attributes:
        timeouts: timeouts of the requests.
        answered_at: time of the last response, by ``time.monotonic()``; ``None`` before the first.

    Raises:
        ConfigurationError: user or password contains characters that cannot be sent.
    """

    def __init__(
        self, endpoint: str, settings: ConnectionSettings, *, streams: bool = False
    ) -> None:
        self.timeouts = Timeouts(settings.transfer_timeout_s)
        self._endpoint = endpoint
        self._settings = settings
        self._headers = _headers(settings)
        self._max_idle = _MAX_IDLE_STREAMS if streams else settings.max_workers
        # Not urllib3's blocking pools: its exit handler drains them, and a request after that
        # waits forever for a connection. Nor a semaphore, which costs a dozen calls of Python
        # code per request.
        self._free: SimpleQueue[None] | None = None
        if not streams:
            self._free = SimpleQueue()
            for _ in range(settings.max_workers):
                self._free.put(None)
        self._routes: dict[tuple[str | None, ...], Route] = {}
        self.answered_at: float | None = None
        self._uploads_in_flight = 0
        self._lock = threading.Lock()

    def headers(self, size: int | None) -> dict[str, str]:
        """Return the headers of a request, including the credentials.

        Args:
            size: bytes in its body; ``None`` if that is not known, or there is none.
        """
        length = {} if size is None else {"Content-Length": str(size)}
        return {**self._headers, **length}

    @contextmanager
    def connection(self, method: str, size: int | None) -> Iterator[tuple[Route, float | None]]:
        """Wait for a free connection, and yield the route and the timeout of a request.

        The timeout is the number of seconds to wait for the next bytes; ``None`` for no limit. A
        PUT counts as in progress while the block runs.

        Args:
            method: HTTP method of the request.
            size: bytes in its body; ``None`` if not known.

        Raises:
            ConfigurationError: the proxy's URL cannot be used.
        """
        if sys.is_finalizing():
            sys.modules.update(_IMPORTED_LATE)
        is_upload = method == "PUT"
        is_counted = self._wait_for_connection()
        try:
            if is_upload:
                with self._lock:
                    self._uploads_in_flight += 1
                    in_flight = self._uploads_in_flight
                yield self._route(), self.timeouts.upload_response_s(size, in_flight)
            else:
                yield self._route(), self.timeouts.idle_s
        finally:
            if is_upload:
                with self._lock:
                    self._uploads_in_flight -= 1
            if is_counted and self._free is not None:
                self._free.put(None)

    def _wait_for_connection(self) -> bool:
        """Wait for a free connection; return whether there is one to give back later."""
        # While the interpreter exits, those in use may belong to threads that have been stopped.
        if self._free is None or sys.is_finalizing():
            return False
        try:
            self._free.get(timeout=_MAX_WAIT_FOR_CONNECTION_S)
        except Empty:
            return False
        return True

    def speaks_https_instead(self) -> bool:
        """Return whether the port of an ``http:`` endpoint accepts a TLS handshake.

        This explains a lost connection. The result is ``False``, without a handshake, if the
        server has answered before or is reached through a proxy.
        """
        if (
            self.answered_at is not None
            or not self._endpoint.startswith("http:")
            or self._route().is_proxied
        ):
            return False
        return speaks_tls(self._endpoint, self.timeouts.connect_s)

    def may_be_restarting(self) -> bool:
        """Return whether the service answered in the last 60 s, and so may answer again soon."""
        return self.answered_at is not None and time.monotonic() - self.answered_at < _MAX_RESTART_S

    def _route(self) -> Route:
        """Return the route to the endpoint by the current environment variables."""
        environment = tuple(map(os.environ.get, ROUTE_VARIABLES))
        route = self._routes.get(environment)
        if route is None:
            route = self._routes[environment] = open_route(
                self._endpoint, self._settings, self._max_idle, self.timeouts.idle_s
            )
        return route


def shared_pool(
    endpoint: str, settings: ConnectionSettings, *, streams: bool = False
) -> ServicePool:
    """Return this process's pool for an endpoint.

    Call this before every operation and do not keep the pool: a forked child must not use its
    parent's connections, and gets its own pools here.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.
        streams: whether the caller's code runs while a request is in progress. That code may need
            another connection, so these requests never wait for a free one.
    """
    with _state.lock:
        return _state.pool_of(endpoint, settings, streams=streams)


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool_of = lru_cache(maxsize=_MAX_POOLS)(ServicePool)


_state = _State()


def _forget_pools() -> None:
    global _state  # noqa: PLW0603 -- the lock may have been held by another thread at the fork
    _state = _State()


os.register_at_fork(after_in_child=_forget_pools)


def _headers(settings: ConnectionSettings) -> dict[str, str]:
    headers = {
        "User-Agent": "mlflow-bucketfs",
        # BucketFS marks stored .gz files as gzip-encoded (bucketfs-python #204): bodies are not
        # decoded, so no proxy may compress them.
        "Accept-Encoding": "identity",
        "Accept": "*/*",
    }
    if settings.password is not None:
        headers["Authorization"] = _basic_auth(settings)
    return headers


def _basic_auth(settings: ConnectionSettings) -> str:
    # In UTF-8 and sent without waiting for a 401, as by all clients of BucketFS; surrogates stand
    # for bytes of the environment that are not UTF-8.
    try:
        token = base64.b64encode(
            f"{settings.user}:{settings.password}".encode("utf-8", "surrogateescape")
        )
    except UnicodeEncodeError:
        raise ConfigurationError(
            "The user or the password for BucketFS contains characters that cannot be sent."
        ) from None
    return f"Basic {token.decode('ascii')}"
