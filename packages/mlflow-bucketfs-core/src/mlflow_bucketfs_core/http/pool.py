"""Connections to BucketFS: one pool per endpoint, credentials and process."""

from __future__ import annotations

import atexit
import base64
import codecs
import errno
import logging
import math
import os
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import urllib3.response
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers, parse_url
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

from mlflow_bucketfs_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse, PoolManager

    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)

# Read and written per system call. 16 KiB, urllib3's default, costs a third of the throughput;
# with 256 KiB, Linux's page cache at times looks for contiguous memory so hard that writing a file
# costs six times the processor time (ext4, Linux 6.18).
BLOCK_BYTES = 1 << 16
# Connections kept open for streams, whose number nothing bounds.
_MAX_IDLE_STREAMS = 64
# Pools kept per process: endpoints in use at the same time, not requests.
_MAX_POOLS = 32
# After this a request opens one connection more than there are workers. The others may belong to
# threads that wait for this very request, or that ended with the interpreter.
_MAX_WAIT_FOR_CONNECTION_S = 60.0

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

# How a connection that the other side has closed appears while a request is sent: EPROTOTYPE on
# macOS, an SSL error where TLS finds it out first.
_CLOSED_ERRNOS = {errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE}
_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

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
        has_answered: whether the service has answered any request.

    Raises:
        ConfigurationError: the CA bundle does not exist, or user and password cannot be sent.
    """

    def __init__(
        self, endpoint: str, settings: ConnectionSettings, *, streams: bool = False
    ) -> None:
        if settings.ca_bundle is not None and not Path(settings.ca_bundle).exists():
            raise ConfigurationError(
                f"EXA_BUCKETFS_CA_BUNDLE={settings.ca_bundle!r} does not exist. It takes the path "
                "of a PEM file with the certificates to trust."
            )
        self.timeouts = Timeouts(settings.transfer_timeout_s)
        self._endpoint = endpoint
        self._settings = settings
        self._headers = _headers(settings)
        self._max_idle = _MAX_IDLE_STREAMS if streams else settings.max_workers
        # Not urllib3's blocking pools: it drains them in an exit handler of its own, and a
        # request after that waits forever for a connection.
        self._free = None if streams else threading.BoundedSemaphore(settings.max_workers)
        self._routes: dict[tuple[str | None, ...], Route] = {}
        self.has_answered = False
        self._uploads_in_flight = 0
        self._lock = threading.Lock()
        if endpoint.startswith("https:") and not _verifies(settings):
            _warn_about_unverified_certificates()

    def headers(self, size: int | None) -> dict[str, str]:
        """Return the headers of a request, the credentials among them.

        Args:
            size: bytes in its body; ``None`` if that is not known, or there is none.
        """
        length = {} if size is None else {"Content-Length": str(size)}
        return {**self._headers, **length}

    @contextmanager
    def connection(self) -> Iterator[Route]:
        """Wait until one more request may be sent, and yield the route for it.

        Raises:
            ConfigurationError: the proxy's URL or ``REQUESTS_CA_BUNDLE`` cannot be used.
        """
        if sys.is_finalizing():
            sys.modules.update(_IMPORTED_LATE)
        counted = self._wait_for_connection()
        try:
            yield self._route()
        finally:
            if counted and self._free is not None:
                self._free.release()

    def _wait_for_connection(self) -> bool:
        """Wait while as many requests as workers are in progress; return whether to count this."""
        # While the interpreter ends, those in progress belong to threads that run no more.
        if self._free is None or sys.is_finalizing():
            return False
        return self._free.acquire(timeout=_MAX_WAIT_FOR_CONNECTION_S)

    def speaks_https_instead(self) -> bool:
        """Return whether the port that was taken for plain HTTP speaks HTTPS, by a handshake.

        Asked when a connection was lost. A server that has answered, and one that only a proxy
        reaches, is not asked: then it is ``False``.
        """
        if self.has_answered or not self._endpoint.startswith("http:") or self._route().is_proxied:
            return False
        return _speaks_tls(self._endpoint, self.timeouts.connect_s)

    def _route(self) -> Route:
        """Return the way to the endpoint that the environment prescribes now."""
        environment = tuple(map(os.environ.get, _ROUTE_VARIABLES))
        route = self._routes.get(environment)
        if route is None:
            route = self._routes[environment] = self._find_route()
        return route

    def _find_route(self) -> Route:
        try:
            return _open_route(self._endpoint, self._settings, self._max_idle, self.timeouts.idle_s)
        except ConfigurationError:
            raise
        except ImportError as error:
            # of urllib3, about PySocks
            reason = f"{error}. Install it: pip install pysocks"
        except ValueError as error:
            # of requests or urllib3; their messages may contain the proxy's password
            reason = f"{type(error).__name__}. Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."
        raise ConfigurationError(f"Cannot use the proxy for {self._endpoint}: {reason}") from None

    @contextmanager
    def answer_timeout(self, method: str, size: int | None) -> Iterator[float | None]:
        """Yield how many seconds a request waits for the next bytes; ``None`` for no limit.

        A PUT counts as one in flight while the block runs.

        Args:
            method: the request's.
            size: bytes in its body; ``None`` if not known.
        """
        if method != "PUT":
            yield self.timeouts.idle_s
            return
        with self._lock:
            self._uploads_in_flight += 1
            in_flight = self._uploads_in_flight
        try:
            yield self.timeouts.upload_answer_s(size, in_flight)
        finally:
            with self._lock:
                self._uploads_in_flight -= 1


def was_sent_completely(response: BaseHTTPResponse) -> bool:
    """Return whether a request was sent to its end before the server closed the connection.

    Args:
        response: its answer, unread.
    """
    return not isinstance(response.connection, _Connection) or response.connection.sent_completely


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


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment prescribes for a URL, if there is one.

    It is as the environment has it: it may lack a scheme, and contain the proxy's password.
    """
    if not getproxies():
        return None
    # Imported for proxies only: it takes longer than all other imports of a request together.
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415

    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    return proxy


@cache
def _warn_about_unverified_certificates() -> None:
    # once per process, in place of urllib3's warning per request
    _logger.warning(
        "EXA_SSL_CERT_VALIDATION=no: certificates are not verified, and whoever can redirect the "
        "network traffic reads password and models. EXA_BUCKETFS_CA_BUNDLE and "
        "EXA_BUCKETFS_CERT_FINGERPRINT make self-signed certificates safe."
    )


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool_of = lru_cache(maxsize=_MAX_POOLS)(ServicePool)


_state = _State()


def _forget_pools() -> None:
    global _state  # noqa: PLW0603 -- the lock may have been held by another thread at the fork
    _state = _State()


os.register_at_fork(after_in_child=_forget_pools)


class _Connection(HTTPConnection):
    """A connection that sends with a timeout of its own, and knows whether all was sent.

    urllib3 sends a body with the timeout for connecting, which is far too short for a server
    that stops reading while it writes to disk.

    Attributes:
        send_timeout_s: seconds without the server taking a byte; ``None`` for no limit.
        sent_completely: whether the last request was sent to its end.
    """

    send_timeout_s: float | None = None
    sent_completely = True

    def request(self, *args: Any, **options: Any) -> None:
        self.timeout = self.send_timeout_s
        self.sent_completely = False
        try:
            super().request(*args, **options)
        except OSError as error:
            # A server may refuse an upload and close the connection before it has all of it;
            # its answer can still be read. urllib3 reads it too, except over TLS, and takes an
            # answer of success for one.
            if error.errno not in _CLOSED_ERRNOS and not isinstance(error, _CLOSED_TLS):
                raise
        else:
            self.sent_completely = True


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS.

    Attributes:
        proxy_context: makes the TLS context for connections to an ``https://`` proxy.
    """

    proxy_context: Callable[[], ssl.SSLContext]

    def connect(self) -> None:
        # One context for all connections would be faster, but is not safe to share between
        # threads: urllib3 writes into it while it connects (psf/requests #6767).
        if self.ssl_context is None:
            if self.proxy_is_forwarding:
                self.ssl_context = self.proxy_context()
            elif resolve_cert_reqs(self.cert_reqs) == ssl.CERT_NONE:
                # Where no authority is asked (a pinned certificate, or no verification), urllib3
                # would still load all of them, 20 ms of processor time per connection.
                self.ssl_context = create_urllib3_context(cert_reqs=ssl.CERT_NONE)
        super().connect()

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        # urllib3 before 2.8 verifies the proxy's certificate as it does that of the server behind
        # it: not at all if that one is pinned.
        context = self.proxy_context()
        self.proxy_is_verified = context.verify_mode == ssl.CERT_REQUIRED
        return context.wrap_socket(sock, server_hostname=hostname)


class _Pool(HTTPConnectionPool):
    """The common base of all pools, whichever way their connections take."""

    def _validate_conn(self, conn: Any) -> None:
        # With the timeout for connecting, which is another than that for sending; and without
        # urllib3's warning per request about verification being off.
        if conn.is_closed:
            conn.connect()

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and not conn.sent_completely:
            conn.close()  # a further request would follow the half of the last one
        super()._put_conn(conn)


def _adapted(
    pool_class: Any,
    *,
    send_timeout_s: float | None,
    proxy_context: Callable[[], ssl.SSLContext],
) -> type[HTTPConnectionPool]:
    """Derive from one of urllib3's pool classes the one whose connections are ours."""
    connection = pool_class.ConnectionCls
    ours = _TlsConnection if issubclass(connection, HTTPSConnection) else _Connection
    attributes = {
        "send_timeout_s": send_timeout_s,
        "proxy_context": staticmethod(proxy_context),
    }
    connection_class = type(ours.__name__, (ours, connection), attributes)
    return type(_Pool.__name__, (_Pool, pool_class), {"ConnectionCls": connection_class})


@dataclass(frozen=True)
class Route:
    """How an endpoint is reached.

    Attributes:
        pool: connections to it, or to the proxy before it.
        prefix: what goes before the path of every request.
        is_proxied: whether a proxy is on the way, of any kind.
    """

    pool: HTTPConnectionPool
    prefix: str
    is_proxied: bool


def _open_route(
    endpoint: str,
    settings: ConnectionSettings,
    max_idle: int,
    send_timeout_s: float | None,
) -> Route:
    """Make the pool for an endpoint.

    Args:
        endpoint: see :class:`ServicePool`.
        settings: what to verify.
        max_idle: connections to keep open.
        send_timeout_s: see :class:`_Connection`.

    Raises:
        ConfigurationError: see :func:`_authorities`.
        ValueError: the proxy's URL cannot be used.
        ImportError: PySocks is not installed.
    """
    scheme, _, host, port, *_ = parse_url(endpoint)
    adapted = partial(
        _adapted,
        send_timeout_s=send_timeout_s,
        proxy_context=partial(_proxy_context, settings),
    )
    options: dict[str, Any] = {"maxsize": max_idle, "blocksize": BLOCK_BYTES}
    if scheme == "https":
        # not otherwise: urllib3 before 2.3 hands some of them to plain connections too
        options.update(_tls_options(settings))
    proxy = proxy_for(endpoint)
    if proxy is None:
        pool_class = HTTPSConnectionPool if scheme == "https" else HTTPConnectionPool
        return Route(adapted(pool_class)(host or "", port, **options), "", is_proxied=False)
    manager = _proxy_manager(proxy, settings, options)
    manager.pool_classes_by_scheme = {
        name: adapted(pool_class) for name, pool_class in manager.pool_classes_by_scheme.items()
    }
    pool = manager.connection_from_host(host, port, scheme)
    # a proxy for plain HTTP expects the complete URL; one for SOCKS connects, like a tunnel
    is_forwarding = scheme == "http" and manager.proxy is not None
    return Route(pool, endpoint if is_forwarding else "", is_proxied=True)


def _proxy_manager(
    proxy: str, settings: ConnectionSettings, options: dict[str, Any]
) -> PoolManager:
    from requests.utils import get_auth_from_url, prepend_scheme_if_needed  # noqa: PLC0415

    proxy = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
    parsed = parse_url(proxy)
    if not parsed.host:
        raise ValueError("no host")
    user, password = get_auth_from_url(proxy)
    if (parsed.scheme or "").startswith("socks"):
        from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415

        return SOCKSProxyManager(proxy, user, password, **options)
    if parsed.scheme == "https":
        # used if it forwards; in front of a tunnel, the options are those for BucketFS
        options = {"cert_reqs": "CERT_REQUIRED" if _verifies(settings) else "CERT_NONE", **options}
    headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    return ProxyManager(proxy, proxy_headers=headers, **options)


def _verifies(settings: ConnectionSettings) -> bool:
    return (
        settings.verify_tls
        or settings.ca_bundle is not None
        or settings.cert_fingerprint is not None
    )


def _tls_options(settings: ConnectionSettings) -> dict[str, Any]:
    """Return urllib3's options for the certificate of BucketFS."""
    options: dict[str, Any] = {"cert_reqs": "CERT_NONE"}
    if settings.ca_bundle is not None:
        options = {"cert_reqs": "CERT_REQUIRED", **_location(settings.ca_bundle)}
    elif settings.verify_tls and settings.cert_fingerprint is None:
        options = {"cert_reqs": "CERT_REQUIRED", **_location(_authorities())}
    # else a pinned certificate, which needs no authority to vouch for it
    if settings.tls_hostname is not None:
        options["assert_hostname"] = settings.tls_hostname
        options["server_hostname"] = settings.tls_hostname
    if settings.cert_fingerprint is not None:
        options["assert_fingerprint"] = settings.cert_fingerprint
    return options


def _location(certificates: str) -> dict[str, str]:
    return {"ca_cert_dir" if Path(certificates).is_dir() else "ca_certs": certificates}


def _proxy_context(settings: ConnectionSettings) -> ssl.SSLContext:
    """Make the TLS context for an ``https://`` proxy.

    Name and pinned certificate in the settings are those of BucketFS, and say nothing of it. The
    CA bundle may: it can hold an authority of the user's own.
    """
    if not _verifies(settings):
        return create_urllib3_context(cert_reqs=ssl.CERT_NONE)
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    for certificates in (_authorities(), settings.ca_bundle):
        if certificates is not None:
            is_directory = Path(certificates).is_dir()
            context.load_verify_locations(**{"capath" if is_directory else "cafile": certificates})
    return context


def _authorities() -> str:
    """Return file or directory with the certificates to trust where no other are set.

    They are those of requests, and so of MLflow. Python's own are none at all on some systems.

    Raises:
        ConfigurationError: ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE`` names no file.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if certificates := os.environ.get(name):
            if not Path(certificates).exists():
                raise ConfigurationError(
                    f"{name}={certificates!r} does not exist. It takes the path of a PEM file "
                    "with the certificates to trust."
                )
            return certificates
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415 -- see proxy_for

    return DEFAULT_CA_BUNDLE_PATH


# Variables that decide about proxies and trusted certificates.
_ROUTE_VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUEST_METHOD", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


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


def _speaks_tls(url: str, timeout_s: float) -> bool:
    """Return whether a TLS handshake succeeds, whatever the certificate. Nothing else is sent.

    Most servers close a connection that speaks plain HTTP to them without a word, as one that is
    being restarted does; only a handshake distinguishes the two.

    Args:
        url: names host and port.
        timeout_s: seconds to wait for the connection, and for each answer.
    """
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or 80
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):  # the latter for host names that cannot be one in TLS
        return False
