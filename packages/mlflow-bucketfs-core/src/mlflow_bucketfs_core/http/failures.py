"""Map HTTP statuses and library exceptions to this package's errors."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING, TypeVar

import urllib3.exceptions as u3
from urllib3.util import Retry

from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    BucketFSError,
    BucketNotFoundError,
    ConfigurationError,
    IncompleteTransferError,
    LockedError,
    ObjectNotFoundError,
    RateLimitedError,
    ServerUnavailableError,
    TlsError,
    TransferError,
    TransferTimeoutError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_core.uri import USUAL_SERVICE

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from mlflow_bucketfs_core.http.request import Request
    from mlflow_bucketfs_core.uri import BucketFSUri

# In addition to 5xx; proxies answer 408 when a request takes too long.
_TRANSIENT_CLIENT_ERRORS = frozenset({408, 423, 429})
_SERVER_ERRORS = range(500, 600)
_REDIRECTS = range(300, 400)
_OK = 200
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 400, 401, 403, 404
_LOCKED, _TOO_MANY = 423, 429
# Modules and packages whose local variables may hold credentials.
_SECRET_FRAMES = (
    *("http.", "requests.", "socket.", "socks.", "ssl.", "urllib3."),
    *(f"{__package__}.pool.", f"{__package__}.route."),
)
# The first bytes of a TLS alert: its type and the version's major number.
_TLS_ALERT = "\x15\x03"


class TransientFailure(Exception):  # noqa: N818 -- a signal to the retry loop, never seen outside
    """A transient failure: a retry may succeed.

    Args:
        error: the error to raise if there is no retry.
        connected: whether a connection to the server exists, or existed a short time before.
        retry_after_s: seconds that the server asks to wait.
        stalled_s: seconds that this attempt spent waiting without progress.
        closed: whether the other side closed the connection without a response.
    """

    def __init__(
        self,
        error: TransferError,
        *,
        connected: bool = True,
        retry_after_s: float = 0.0,
        stalled_s: float = 0.0,
        closed: bool = False,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.connected = connected
        self.retry_after_s = retry_after_s
        self.stalled_s = stalled_s
        self.closed = closed


def check_status(response: BaseHTTPResponse, request: Request) -> None:
    """Raise unless the status is 200, BucketFS's only status of success (bucketfs-java).

    Raises:
        TransientFailure: the status is 408, 423, 429 or 5xx.
        BucketFSError: any other status.
    """
    status = response.status
    if status == _OK:
        return
    if status in _TRANSIENT_CLIENT_ERRORS or status in _SERVER_ERRORS:
        raise TransientFailure(
            _transient_error(status, request), retry_after_s=_retry_after_s(response)
        )
    raise _permanent_error(status, request)


def _transient_error(status: int, request: Request) -> TransferError:
    if status == _LOCKED:
        return request.error(
            LockedError,
            "the path is locked (423). BucketFS locks a path for 10 to 30 seconds after its "
            "deletion; retry after that, or use another name.",
        )
    if status == _TOO_MANY:
        return request.error(
            RateLimitedError,
            "the server gets too many requests (429). Lower EXA_BUCKETFS_MAX_WORKERS.",
        )
    return request.error(
        ServerUnavailableError,
        f"the server answered {status}. It may be starting, overloaded or out of disk space.",
    )


def _permanent_error(status: int, request: Request) -> BucketFSError:
    uri = request.uri
    if status == _UNAUTHORIZED:
        return request.error(
            AuthenticationError,
            "the server requires a password (401). Set EXA_BUCKETFS_PASSWORD, and "
            "EXA_BUCKETFS_USER to w (read and write) or r (read).",
        )
    if status == _FORBIDDEN:
        return request.error(
            AccessDeniedError,
            "access denied (403). Check EXA_BUCKETFS_USER (w writes and reads, r only reads) "
            f"and EXA_BUCKETFS_PASSWORD, which belongs to the bucket {uri.bucket!r}.",
        )
    if status == _NOT_FOUND and request.not_found is ObjectNotFoundError:
        return request.error(ObjectNotFoundError, "there is no such object (404).")
    if status == _NOT_FOUND and request.not_found is BucketNotFoundError:
        return request.error(BucketNotFoundError, _no_such_bucket(uri))
    if status in _REDIRECTS:
        reason = (
            f"{uri.authority} redirects elsewhere ({status}), which BucketFS does not do. "
            "Redirects are not followed, because the other server would receive the password. "
            "Check host and port."
        )
        return request.error(UnexpectedResponseError, reason)
    reason = f"{uri.authority} answered {status}, which BucketFS does not do. Check host and port."
    if status == _BAD_REQUEST and not uri.tls:  # of nginx, Apache and Go at a port for HTTPS
        reason += f" If the port is one for HTTPS, use {uri.scheme}s:// there."
    return request.error(UnexpectedResponseError, reason)


def _no_such_bucket(uri: BucketFSUri) -> str:
    text = (
        f"there is no bucket {uri.bucket!r} at {uri.authority} (404). "
        f"Check the name; {uri.endpoint}/ lists the buckets."
    )
    if uri.service == USUAL_SERVICE:  # the URI has a service
        return text
    return (
        f"{text} Is the service missing in the URI? It is {uri.scheme}://host/service/bucket/path, "
        f"and {uri.service!r} was taken for the service."
    )


def _retry_after_s(response: BaseHTTPResponse) -> float:
    value = response.headers.get("Retry-After")
    if not value:
        return 0.0
    try:
        return Retry().parse_retry_after(value)
    except (u3.InvalidHeader, ValueError, OverflowError):  # the latter two for impossible dates
        return 0.0


def incomplete_upload_failure(request: Request) -> TransientFailure:
    """Return the failure for a success response to a request that was not sent completely."""
    reason = (
        f"{request.uri.authority} answered with success before all bytes were sent, and closed "
        "the connection. A proxy in between may be the cause."
    )
    return TransientFailure(request.error(IncompleteTransferError, reason))


def own_error(chain: list[BaseException]) -> BucketFSError | None:
    """Return this package's error in a chain, raised by the source of an upload, or ``None``."""
    return _first(chain, BucketFSError)


def failure_from(chain: list[BaseException], request: Request) -> Exception:
    """Map an exception of urllib3 or the socket layer to an error of this package.

    Args:
        chain: see :func:`causes_of`.
        request: the failed request.

    Returns:
        A ``TransientFailure`` if a retry may help, else a ``BucketFSError``.
    """
    error = chain[0]
    proxy = _first(chain, u3.ProxyError)
    # over TLS, a connection that is lost while it sends raises an SSLEOFError
    lost = _first(chain, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if not lost and (tls := _first(chain, ssl.SSLError, u3.SSLError)):
        advice = _proxy_tls_advice(tls) if proxy else _tls_advice(request.uri, tls)
        return request.error(TlsError, advice)
    garbage = _first(chain, http.client.BadStatusLine)
    if garbage and str(garbage).startswith(_TLS_ALERT):
        return plain_http_to_tls_error(request)
    if not lost and isinstance(error, ValueError) and not _first(chain, u3.InvalidHeader):
        # urllib3 refused the proxy's host; the message may hold its password
        reason = f"{type(error).__name__}. Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."
        return request.error(ConfigurationError, reason)
    if _first(chain, u3.ConnectTimeoutError, u3.NewConnectionError, u3.ProxyError):
        reason = _connect_advice(request.uri, chain)
        return TransientFailure(request.error(ServerUnavailableError, reason), connected=False)
    closed = _first(chain, ConnectionError) is not None
    return TransientFailure(_broken_transfer_error(chain, request), closed=closed)


def _connect_advice(uri: BucketFSUri, chain: list[BaseException]) -> str:
    if _first(chain, u3.ProxyError):
        return (
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names does not connect to it. "
            f"To connect without a proxy, add {uri.host} to NO_PROXY."
        )
    if _first(chain, u3.NameResolutionError, socket.gaierror):
        return f"the host name {uri.host!r} does not resolve. Check it."
    # NewConnectionError is derived from ConnectTimeoutError, although nothing timed out
    if not _first(chain, u3.NewConnectionError):
        return f"{uri.authority} does not answer. Is the host up, does a firewall drop packets?"
    return (
        f"no connection to {uri.authority}. Is BucketFS running there, and is the port right "
        "(by default 2580 for HTTP, 2581 for HTTPS)?"
    )


def plain_http_to_tls_error(request: Request) -> TlsError:
    """Return the error for an ``exa+bfs://`` URI that names a port for HTTPS."""
    uri = request.uri
    reason = f"{uri.authority} speaks HTTPS, not plain HTTP. Use {uri.scheme}s:// there."
    return request.error(TlsError, reason)


def _broken_transfer_error(chain: list[BaseException], request: Request) -> TransferError:
    authority = request.uri.authority
    if _first(chain, u3.ReadTimeoutError, TimeoutError):
        return request.error(
            TransferTimeoutError,
            f"{authority} stopped answering, or is far too slow. "
            "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT sets how many seconds to wait.",
        )
    if _first(chain, http.client.IncompleteRead):  # urllib3's is derived from it
        return request.error(
            IncompleteTransferError, "the connection ended before all announced bytes had arrived."
        )
    return request.error(
        ServerUnavailableError,
        f"the connection was lost ({type(chain[-1]).__name__}). {_other_scheme(request.uri)}",
    )


def _other_scheme(uri: BucketFSUri) -> str:
    if uri.tls:
        return "If it is lost every time, the port may be one for plain HTTP: use exa+bfs:// there."
    return "If it is lost every time, the port may be one for HTTPS: use exa+bfss:// there."


_Error = TypeVar("_Error", bound=BaseException)


def _first(chain: list[BaseException], *types: type[_Error]) -> _Error | None:
    return next((error for error in chain if isinstance(error, types)), None)


def causes_of(error: BaseException, handled: BaseException | None) -> list[BaseException]:
    """Return an exception and all exceptions that are its reason, cause, context or argument.

    Args:
        error: the caught exception.
        handled: the exception that the caller was already handling, such as before a fallback to
            HTTP. It is excluded: Python makes it the context of new ones, but it is not a cause.
    """
    found: list[BaseException] = []
    seen = {id(handled)}
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        found.append(current)
        linked = [getattr(current, "reason", None), current.__cause__, current.__context__]
        pending += [e for e in (*linked, *current.args) if isinstance(e, BaseException)]
    return found


def remove_secret_frames(chain: list[BaseException]) -> None:
    """Remove the frames of HTTP libraries, and of ours that call them, from tracebacks.

    Their local variables hold the header with the password, and pytest with ``-l`` and error
    trackers print local variables. Types, messages and the frames of all other code stay.

    Args:
        chain: see :func:`causes_of`.
    """
    for error in chain:
        kept = []
        traceback = error.__traceback__
        while traceback is not None:
            module = f"{traceback.tb_frame.f_globals.get('__name__')}."
            if not module.startswith(_SECRET_FRAMES):
                kept.append(traceback)
            traceback = traceback.tb_next
        for frame in reversed(kept):
            frame.tb_next = traceback
            traceback = frame
        error.__traceback__ = traceback


def _proxy_tls_advice(reason: BaseException) -> str:
    return (
        f"TLS with the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names failed ({reason}). "
        "Set REQUESTS_CA_BUNDLE to a PEM file with the authority of its certificate."
    )


def _tls_advice(uri: BucketFSUri, reason: BaseException) -> str:
    text = str(reason)
    if "fingerprint" in text.lower():
        return (
            f"the certificate of {uri.authority} is not the one in EXA_BUCKETFS_CERT_FINGERPRINT. "
            "If the server got a new one, update the fingerprint."
        )
    if "doesn't match" in text or "Hostname mismatch" in text or "not valid for" in text:
        return (
            f"the certificate of {uri.authority} is for another name ({text}). Exasol's own "
            "certificates are for exacluster.local: set EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local."
        )
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return f"{uri.authority} does not speak HTTPS. Use exa+bfs:// for plain HTTP."
    return (
        f"TLS with {uri.authority} failed ({text}). For a self-signed certificate set "
        "EXA_BUCKETFS_CA_BUNDLE to its PEM file, or EXA_BUCKETFS_CERT_FINGERPRINT to its SHA-256 "
        "fingerprint."
    )
