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

# Connections kept open for streams, whose number nothing bounds.
_MAX_IDLE_STREAMS = 64
# Pools kept per process: endpoints in use at the same time, not requests.
_MAX_POOLS = 32
# After this a request opens one connection more than there are workers. The others may belong to
# threads that wait for this very request, or that ended with the interpreter.
_MAX_WAIT_FOR_CONNECTION_S = 60.0
# A server that has answered within this time and accepts no connection may be restarting. Later,
# each file of a folder would wait for one that is gone.
_MAX_RESTART_S = 60.0

_GIB = 1 << 30
_DEFAULT_IDLE_S = 60.0
# A PUT returns only after all nodes have the bytes: about 1 s at least, about 10 s per GiB and
# extra node (measured for docker-db 2026.1.1 with 2 and 4 nodes, Polo3cat/syncfs). Twelve extra
# nodes must do.
_REPLICATION_S_PER_GIB = 120.0
# Whether the second per PUT passes in parallel is known nowhere; assume that it does not.
_S_PER_UPLOAD_IN_FLIGHT = 2.0
# The assumed length of a stream of unknown length.
_UNKNOWN_LENGTH_BYTES = 4 * _GIB

# Modules imported or looked up by each request, or by the first one. At the very end of the
# interpreter, when it deletes the variables of modules, nothing can be imported any more.
_IMPORTED_LATE = {
    "atexit": atexit,
    "time": time,
    "urllib3": urllib3,
    "urllib3.response": urllib3.response,
}
codecs.lookup("idna")


@dataclass(frozen=True)
class Timeouts:
    """Waiting times of requests, all in seconds; ``None`` in a result means no limit.

    Args:
        transfer_timeout_s: seconds that the user allows without progress; ``None`` for 60 s,
            infinity for no limit.
    """

    transfer_timeout_s: float | None = None

    # Three tries and the waits between them end within 15 s, so that a wrong port is reported soon;
    # 4 s span two repetitions of a lost SYN.
    connect_s: float = 4.0

    @property
    def idle_s(self) -> float | None:
        """Seconds without a byte, in either direction."""
        idle_s = self.transfer_timeout_s or _DEFAULT_IDLE_S
        return None if math.isinf(idle_s) else idle_s

    def upload_answer_s(self, size: int | None, in_flight: int) -> float | None:
        """Seconds until a PUT must be answered after its body was sent.

        Args:
            size: bytes sent; ``None`` if not known beforehand.
            in_flight: PUTs under way in this process, this one included.
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
        timeouts: waiting times of the requests.
        answered_at: when the service answered last, by ``time.monotonic()``; ``None`` for never.

    Raises:
        ConfigurationError: user and password cannot be sent.
    """

    def __init__(
        self, endpoint: str, settings: ConnectionSettings, *, streams: bool = False
    ) -> None:
        self.timeouts = Timeouts(settings.transfer_timeout_s)
        self._endpoint = endpoint
        self._settings = settings
        self._headers = _headers(settings)
        self._max_idle = _MAX_IDLE_STREAMS if streams else settings.max_workers
        # Not urllib3's blocking pools: it drains them in an exit handler of its own, and a
        # request after that waits forever for a connection. Nor a semaphore, which
        # costs a dozen calls of Python code per request.
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
        """Return the headers of a request, the credentials among them.

        Args:
            size: bytes in its body; ``None`` if that is not known, or there is none.
        """
        length = {} if size is None else {"Content-Length": str(size)}
        return {**self._headers, **length}

    @contextmanager
    def connection(self, method: str, size: int | None) -> Iterator[tuple[Route, float | None]]:
        """Wait until one more request may be sent, and yield its route and timeout.

        The latter is the number of seconds to wait for the next bytes; ``None`` for no limit. A
        PUT counts as one in flight while the block runs.

        Args:
            method: the request's.
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
                yield self._route(), self.timeouts.upload_answer_s(size, in_flight)
            else:
                yield self._route(), self.timeouts.idle_s
        finally:
            if is_upload:
                with self._lock:
                    self._uploads_in_flight -= 1
            if is_counted and self._free is not None:
                self._free.put(None)

    def _wait_for_connection(self) -> bool:
        """Wait while as many requests as workers are in progress; return whether to count this."""
        # While the interpreter ends, those in progress belong to threads that run no more.
        if self._free is None or sys.is_finalizing():
            return False
        try:
            self._free.get(timeout=_MAX_WAIT_FOR_CONNECTION_S)
        except Empty:
            return False
        return True

    def speaks_https_instead(self) -> bool:
        """Return whether the port that was taken for plain HTTP speaks HTTPS, by a handshake.

        Asked when a connection was lost. A server that has answered, and one that only a proxy
        reaches, is not asked: then it is ``False``.
        """
        if (
            self.answered_at is not None
            or not self._endpoint.startswith("http:")
            or self._route().is_proxied
        ):
            return False
        return speaks_tls(self._endpoint, self.timeouts.connect_s)

    def may_be_restarting(self) -> bool:
        """Return whether the service has answered lately: then it may do so again soon."""
        return self.answered_at is not None and time.monotonic() - self.answered_at < _MAX_RESTART_S

    def _route(self) -> Route:
        """Return the way to the endpoint that the environment prescribes now."""
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

    Ask for it before every operation instead of keeping it: a forked child must not use its
    parent's connections, and gets pools of its own here.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.
        streams: whether the caller's code runs while a request is in progress. It may need another
            connection meanwhile, so these requests never wait for a free one.
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
        # BucketFS marks stored .gz files as gzip-encoded (bucketfs-python #204): bodies are taken
        # as they are, and nothing on the way is invited to compress them.
        "Accept-Encoding": "identity",
        "Accept": "*/*",
    }
    if settings.password is not None:
        headers["Authorization"] = _basic_auth(settings)
    return headers


def _basic_auth(settings: ConnectionSettings) -> str:
    # In UTF-8 and sent without being asked, as all clients of BucketFS do; surrogates stand for
    # bytes of the environment that are not UTF-8.
    try:
        token = base64.b64encode(
            f"{settings.user}:{settings.password}".encode("utf-8", "surrogateescape")
        )
    except UnicodeEncodeError:
        raise ConfigurationError(
            "The user or the password for BucketFS contains characters that cannot be sent."
        ) from None
    return f"Basic {token.decode('ascii')}"
