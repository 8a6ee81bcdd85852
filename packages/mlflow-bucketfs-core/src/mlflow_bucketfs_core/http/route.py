"""The route to a server: proxies, trusted certificates, and connections of our own classes."""

from __future__ import annotations

import errno
import http.client
import io
import logging
import os
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from mlflow_bucketfs_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from _typeshed import WriteableBuffer
    from urllib3 import BaseHTTPResponse, PoolManager

    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)

# Read and written per system call. 16 KiB, urllib3's default, costs a third of the throughput;
# with 256 KiB, Linux's page cache at times searches for contiguous memory so long that writing a
# file costs six times the processor time (ext4, Linux 6.18).
BLOCK_BYTES = 1 << 16

# Errors of sending on a connection that the other side has closed: EPROTOTYPE on macOS, an SSL
# error if TLS detects it first.
_CLOSED_ERRNOS = {errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE}
_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

# Variables that select proxies and trusted certificates.
ROUTE_VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUEST_METHOD", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


@dataclass(frozen=True)
class Route:
    """The route to an endpoint, direct or through a proxy.

    Attributes:
        pool: connections to the endpoint, or to its proxy.
        prefix: text to put before each path: the endpoint's URL for a proxy that forwards plain
            HTTP, else empty.
        is_proxied: whether there is a proxy, of any kind.
    """

    pool: HTTPConnectionPool
    prefix: str
    is_proxied: bool


def open_route(
    endpoint: str,
    settings: ConnectionSettings,
    max_idle: int,
    send_timeout_s: float | None,
) -> Route:
    """Return the route to an endpoint by the current environment variables.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: settings for TLS.
        max_idle: largest number of idle connections to keep open.
        send_timeout_s: seconds without progress while sending; ``None`` for no limit.

    Raises:
        ConfigurationError: the proxy's URL cannot be used, or PySocks is not installed.
    """
    try:
        return _make_route(endpoint, settings, max_idle, send_timeout_s)
    except ImportError as error:
        # of urllib3, about PySocks
        reason = f"{error}. Install it: pip install pysocks"
    except ValueError as error:
        # of requests or urllib3; their messages may contain the proxy's password
        reason = f"{type(error).__name__}. Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."
    raise ConfigurationError(f"Cannot use the proxy for {endpoint}: {reason}") from None


def _make_route(
    endpoint: str,
    settings: ConnectionSettings,
    max_idle: int,
    send_timeout_s: float | None,
) -> Route:
    scheme, _, host, port, *_ = parse_url(endpoint)
    adapted = partial(
        _adapted,
        send_timeout_s=send_timeout_s,
        server_context=partial(_server_context, settings),
        proxy_context=partial(_proxy_context, settings),
    )
    options: dict[str, Any] = {"maxsize": max_idle, "blocksize": BLOCK_BYTES}
    if scheme == "https":
        # not otherwise: urllib3 before 2.3 passes some of them to plain connections too
        options.update(_tls_options(settings))
        if not _verifies(settings):
            _warn_about_unverified_certificates()
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


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment variables name for a URL, or ``None``.

    The text is unchanged: it may have no scheme, and may contain the proxy's password.
    """
    if not getproxies():
        return None
    # Imported for proxies only: it takes longer than all other imports of a request together.
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415

    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    return proxy


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
        # for a proxy that forwards; with a tunnel, the options apply to BucketFS behind it
        options = {"cert_reqs": "CERT_REQUIRED" if _verifies(settings) else "CERT_NONE", **options}
    headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    return ProxyManager(proxy, proxy_headers=headers, **options)


def _warn_about_unverified_certificates() -> None:
    # once per process, instead of urllib3's warning per request; of several threads, only the one
    # that removes the entry logs it
    with suppress(IndexError):
        _unwarned.pop()
        _logger.warning(
            "EXA_SSL_CERT_VALIDATION=no: certificates are not verified, so that an attacker who "
            "redirects the network traffic can read password and models. EXA_BUCKETFS_CA_BUNDLE "
            "and EXA_BUCKETFS_CERT_FINGERPRINT make self-signed certificates safe."
        )


_unwarned = [True]


def _verifies(settings: ConnectionSettings) -> bool:
    return (
        settings.verify_tls
        or settings.ca_bundle is not None
        or settings.cert_fingerprint is not None
    )


def _asks_authorities(settings: ConnectionSettings) -> bool:
    """Return whether BucketFS's certificate must be signed by a trusted authority."""
    return settings.ca_bundle is not None or (
        settings.verify_tls and settings.cert_fingerprint is None
    )


def _tls_options(settings: ConnectionSettings) -> dict[str, Any]:
    """Return urllib3's options for the certificate of BucketFS."""
    options: dict[str, Any] = {
        "cert_reqs": "CERT_REQUIRED" if _asks_authorities(settings) else "CERT_NONE"
    }
    if settings.tls_hostname is not None:
        options["assert_hostname"] = settings.tls_hostname
        options["server_hostname"] = settings.tls_hostname
    if settings.cert_fingerprint is not None:
        options["assert_fingerprint"] = settings.cert_fingerprint
    return options


def _server_context(settings: ConnectionSettings) -> ssl.SSLContext:
    """Make the TLS context for a connection to BucketFS."""
    if not _asks_authorities(settings):
        return _tls_context()
    return _tls_context(_own_authorities(settings) or _authorities())


def _proxy_context(settings: ConnectionSettings) -> ssl.SSLContext:
    """Make the TLS context for an ``https://`` proxy.

    Host name and fingerprint in the settings are those of BucketFS and are not used here. The CA
    bundle is used, because it may contain the authority of the proxy's certificate.
    """
    if not _verifies(settings):
        return _tls_context()
    return _tls_context({**_authorities(), **_own_authorities(settings)})


def _tls_context(authorities: dict[str, str] | None = None) -> ssl.SSLContext:
    """Make a TLS context that trusts these authorities, or verifies nothing if ``None``.

    Args:
        authorities: name of the setting → file or directory with certificates.

    Raises:
        ConfigurationError: one of them has no certificates.
    """
    if authorities is None:
        # urllib3's own context would still load all authorities of the system, 20 ms of
        # processor time per connection
        return create_urllib3_context(cert_reqs=ssl.CERT_NONE)
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    for name, certificates in authorities.items():
        _trust(context, name, certificates)
    return context


def _trust(context: ssl.SSLContext, name: str, certificates: str) -> None:
    kind = "capath" if Path(certificates).is_dir() else "cafile"
    try:
        context.load_verify_locations(**{kind: certificates})
    except OSError as error:
        failure = ConfigurationError(
            f"{name}={certificates!r} cannot be used: {error.strerror or error}. It takes the path "
            "of a PEM file with the certificates to trust."
        )
        failure.variable = name if name in os.environ else None
        raise failure from None


def _own_authorities(settings: ConnectionSettings) -> dict[str, str]:
    return {} if settings.ca_bundle is None else {"EXA_BUCKETFS_CA_BUNDLE": settings.ca_bundle}


def _authorities() -> dict[str, str]:
    """Return the certificates to trust by default: their source → file or directory.

    The library ``requests``, and so MLflow, trusts the same. Python itself has none on some
    systems.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if certificates := os.environ.get(name):
            return {name: certificates}
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415 -- see proxy_for

    return {"certifi.where()": DEFAULT_CA_BUNDLE_PATH}


class _Reader(io.RawIOBase):
    """A reader of a socket with a time limit for all reads together.

    The timeout of a socket is for one read: reading from a server that sends single bytes slowly
    would never end.

    Args:
        connected: the socket. Its timeout is the limit until :meth:`limit` sets another.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._raw = connected.makefile("rb", buffering=0)
        self._ends_at: float | None = None
        self.limit(connected.gettimeout())

    def limit(self, seconds: float | None) -> None:
        """Make reads fail once these seconds have passed; ``None`` removes the limit."""
        self._ends_at = None if seconds is None else time.monotonic() + seconds

    def wait_at_most(self, seconds: float) -> None:
        """Limit the time of all further reads together to these seconds, and that of each."""
        self.limit(seconds)
        self._socket.settimeout(seconds)

    def makefile(self, mode: str) -> BinaryIO:
        """Return the file that ``http.client`` reads from."""
        del mode
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return whether it can be read from."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read the bytes that have arrived, or wait for some.

        Raises:
            TimeoutError: the time limit has passed.
        """
        if self._ends_at is not None and time.monotonic() > self._ends_at:
            raise TimeoutError("the response took too long")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Close the file, not the socket."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose complete head must arrive within the timeout of the connection.

    The limit includes all headers, and any ``100 Continue`` before them.
    """

    def __init__(self, connected: socket.socket, *args: Any, **options: Any) -> None:
        self.reader = _Reader(connected)
        super().__init__(self.reader, *args, **options)  # type: ignore[arg-type]

    def begin(self) -> None:
        super().begin()
        self.reader.limit(None)


class _Connection(HTTPConnection):
    """A connection with a separate timeout for sending, which records whether all was sent.

    urllib3 sends a body with the timeout for connecting, which is far too short for a server
    that stops reading while it writes to disk.

    Attributes:
        send_timeout_s: seconds without progress while sending; ``None`` for no limit.
        sent_completely: whether the last request was sent to its end.
        reader: the reader of the last response.
    """

    send_timeout_s: float | None = None
    sent_completely = True
    reader: _Reader

    def response_class(self, *args: Any, **options: Any) -> _Response:  # type: ignore[override]
        """Make the response to the last request."""
        response = _Response(*args, **options)
        self.reader = response.reader
        return response

    def request(self, *args: Any, **options: Any) -> None:
        self.timeout = self.send_timeout_s
        self.sent_completely = False
        try:
            super().request(*args, **options)
        except OSError as error:
            # A server may refuse an upload and close the connection before it has received all of
            # it; its response can still be read. urllib3 reads it too, except over TLS, but trusts
            # a success response.
            if error.errno not in _CLOSED_ERRNOS and not isinstance(error, _CLOSED_TLS):
                raise
        else:
            self.sent_completely = True


class _TlsConnection(_Connection, HTTPSConnection):
    """A :class:`_Connection` over TLS.

    Attributes:
        server_context: makes the TLS context for a connection to BucketFS.
        proxy_context: makes the one for a connection to an ``https://`` proxy.
    """

    server_context: Callable[[], ssl.SSLContext]
    proxy_context: Callable[[], ssl.SSLContext]

    def connect(self) -> None:
        # One context for all connections would be faster, but is not safe to share between
        # threads: urllib3 writes into it while it connects (psf/requests #6767).
        if self.ssl_context is None:
            make = self.proxy_context if self.proxy_is_forwarding else self.server_context
            self.ssl_context = make()
        super().connect()

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        # urllib3 before 2.8 verifies the proxy's certificate as that of the server behind it: not
        # if that one is pinned.
        context = self.proxy_context()
        self.proxy_is_verified = context.verify_mode == ssl.CERT_REQUIRED
        return context.wrap_socket(sock, server_hostname=hostname)


class _Pool(HTTPConnectionPool):
    """The base class of all pools, direct or through a proxy."""

    def _validate_conn(self, conn: Any) -> None:
        # With the timeout for connecting, which differs from that for sending; and without
        # urllib3's warning per request about certificates that are not verified.
        if conn.is_closed:
            conn.connect()

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and not conn.sent_completely:
            conn.close()  # the server would read the next request as the rest of this one
        super()._put_conn(conn)


def _adapted(
    pool_class: Any,
    *,
    send_timeout_s: float | None,
    server_context: Callable[[], ssl.SSLContext],
    proxy_context: Callable[[], ssl.SSLContext],
) -> type[HTTPConnectionPool]:
    """Derive a pool class from one of urllib3's, with our connections and these attributes."""
    connection = pool_class.ConnectionCls
    ours = _TlsConnection if issubclass(connection, HTTPSConnection) else _Connection
    attributes = {
        "send_timeout_s": send_timeout_s,
        "server_context": staticmethod(server_context),
        "proxy_context": staticmethod(proxy_context),
    }
    connection_class = type(ours.__name__, (ours, connection), attributes)
    return type(_Pool.__name__, (_Pool, pool_class), {"ConnectionCls": connection_class})


def was_sent_completely(response: BaseHTTPResponse) -> bool:
    """Return whether the complete request was sent; the server may have answered earlier.

    Args:
        response: the response, before its body is read.
    """
    return not isinstance(response.connection, _Connection) or response.connection.sent_completely


def limit_reading(response: BaseHTTPResponse, seconds: float) -> None:
    """Make reads of a response's body fail with a timeout once these seconds have passed."""
    if isinstance(response.connection, _Connection):
        response.connection.reader.limit(seconds)


def drain(response: BaseHTTPResponse, seconds: float) -> None:
    """Read the rest of a response, so that its connection can be used again.

    Args:
        response: a response; its connection is closed if reading takes longer.
        seconds: total time to wait for bytes that have not arrived yet.
    """
    if response.length_remaining and isinstance(response.connection, _Connection):
        response.connection.reader.wait_at_most(seconds)
    response.drain_conn()


def speaks_tls(url: str, timeout_s: float) -> bool:
    """Return whether a TLS handshake succeeds, with any certificate. Nothing else is sent.

    A connection that is closed without a response can mean plain HTTP at an HTTPS port, or a server
    that is being restarted; only a handshake distinguishes the two. A proxy is not used.

    Args:
        url: names host and port.
        timeout_s: seconds to wait for the connection, and for each response.
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
    except (OSError, ValueError):  # the latter for host names that TLS does not allow
        return False
