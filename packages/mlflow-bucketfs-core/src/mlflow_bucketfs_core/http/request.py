"""One HTTP request: sending it, checking its response and reading the response's body."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from mlflow_bucketfs_core.errors import (
    ConfigurationError,
    IncompleteTransferError,
    UnexpectedResponseError,
    printable,
)
from mlflow_bucketfs_core.http.failures import (
    TransientFailure,
    causes_of,
    check_status,
    failure_from,
    incomplete_upload_failure,
    own_error,
    plain_http_to_tls_error,
    remove_secret_frames,
)
from mlflow_bucketfs_core.http.pool import Timeouts, shared_pool
from mlflow_bucketfs_core.http.retry import check_abandoned
from mlflow_bucketfs_core.http.route import BLOCK_BYTES, drain, limit_reading, was_sent_completely
from mlflow_bucketfs_core.uri import join_key, quote_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from urllib3 import BaseHTTPResponse

    from mlflow_bucketfs_core.errors import BucketFSError
    from mlflow_bucketfs_core.settings import ConnectionSettings
    from mlflow_bucketfs_core.uri import BucketFSUri

_logger = logging.getLogger(__name__)
_Error = TypeVar("_Error", bound="BucketFSError")
# Reading the rest of a short response is faster than a new connection, unless that rest arrives
# late. The wait is for a body that arrives shortly after its head.
_WORTH_DRAINING_BYTES = 64 * 1024
_WORTH_WAITING_S = 0.2
# More than any bucket has: a server that sends more is not BucketFS.
_MAX_LISTING_BYTES = 1 << 30
_MAX_LISTING_KEYS = 10_000_000
_MAX_KEY_BYTES = 1 << 16
# The limit for a complete listing, in multiples of the idle timeout.
_LISTING_TIMEOUTS = 10
_warned_about_unverifiable_length: set[str] = set()


@dataclass(frozen=True)
class Request:
    """A request without its body, and the operation that it belongs to.

    Attributes:
        method: ``GET``, ``PUT`` or ``DELETE``.
        uri: object, bucket or service.
        verb: the operation, for messages such as "Cannot upload …".
        not_found: the error to raise for the status 404.
    """

    method: str
    uri: BucketFSUri
    verb: str
    not_found: type[BucketFSError]

    def error(self, kind: type[_Error], reason: str) -> _Error:
        """Return an error with operation, URI and reason in its message."""
        error = kind(f"Cannot {self.verb} {self.uri}: {reason}")
        error.reason = printable(reason)
        return error


@contextmanager
def send(
    request: Request,
    settings: ConnectionSettings,
    body: Any = None,
    *,
    size: int | None = None,
    streams: bool = False,
) -> Iterator[BaseHTTPResponse]:
    """Send a request once, and yield its response with status 200 and an unread body.

    Args:
        request: the request to send.
        settings: credentials, TLS, timeouts and pool size.
        body: bytes, an object with ``read``, or an iterable of bytes.
        size: bytes in the body; if ``None``, a body without ``len()`` is sent in chunks.
        streams: see :func:`~mlflow_bucketfs_core.http.pool.shared_pool`.

    Raises:
        TransientFailure: a retry may help; also for failures while the body is read.
        BucketFSError: a retry would fail as well.
    """
    pool = shared_pool(request.uri.endpoint, settings, streams=streams)
    path = quote_key(join_key(request.uri.bucket, request.uri.path))
    started = time.monotonic()
    handled = sys.exc_info()[1]
    timeout_s = None
    try:
        with pool.connection(request.method, size) as (route, timeout_s):
            response: BaseHTTPResponse = route.pool.urlopen(
                request.method,
                f"{route.prefix}/{path}",
                body=body,
                headers=pool.headers(size),
                timeout=Timeout(connect=pool.timeouts.connect_s, read=timeout_s),
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
            pool.answered_at = time.monotonic()
            sent_completely = was_sent_completely(response)
            try:
                check_status(response, request)
                if not sent_completely:
                    raise incomplete_upload_failure(request)
                yield response
            finally:
                _release(response)
    except HTTPError as error:
        chain = causes_of(error, handled)
        remove_secret_frames(chain)
        if ours := own_error(chain):
            raise ours  # noqa: B904 -- "from error" would make the chain circular
        failure = failure_from(chain, request)
        if isinstance(failure, TransientFailure):
            failed = time.monotonic()
            failure.connected = failure.connected or pool.may_be_restarting()
            if isinstance(failure.error, TimeoutError):
                elapsed_s = failed - started
                failure.stalled_s = min(elapsed_s, timeout_s or elapsed_s)
            elif failure.closed:
                if pool.speaks_https_instead():
                    raise plain_http_to_tls_error(request) from error
                failure.stalled_s = time.monotonic() - failed
        # urllib3's message about a proxy's URL would show the proxy's password
        raise failure from (None if isinstance(failure, ConfigurationError) else error)
    except BaseException as error:
        # raised by the source of an upload, or Ctrl-C
        remove_secret_frames(causes_of(error, handled))
        raise


def _release(response: BaseHTTPResponse) -> None:
    left = response.length_remaining
    try:
        if left is not None and left <= _WORTH_DRAINING_BYTES and not response.closed:
            drain(response, _WORTH_WAITING_S)
    finally:
        response.close()  # no effect if the response was read to its end
        response.release_conn()


def read_body(response: BaseHTTPResponse, request: Request) -> Iterator[bytes]:
    """Yield the body as it was stored, neither decoded nor decompressed.

    Its length is verified if the response announces one (Content-Length or chunks). A body that
    ends with the connection cannot be verified; this is logged once per server.

    Raises:
        urllib3.exceptions.HTTPError: the transfer failed; :func:`send` maps this to our errors.
        TransferError: the download was abandoned.
    """
    if response.length_remaining is None and not response.chunked:
        authority = request.uri.authority
        if authority not in _warned_about_unverifiable_length:
            _warned_about_unverifiable_length.add(authority)
            _logger.warning(
                "%s does not announce the length of its responses, so that incomplete downloads "
                "cannot be detected. A proxy in between may be the cause.",
                authority,
            )
    while block := response.read(BLOCK_BYTES, decode_content=False):
        check_abandoned()
        yield block


def read_listing(
    response: BaseHTTPResponse, request: Request, settings: ConnectionSettings
) -> Iterator[bytes]:
    """Yield the body of a listing, with limits for bytes, lines, bytes per line, and time.

    Raises:
        UnexpectedResponseError: a limit is exceeded that no bucket reaches.
        urllib3.exceptions.HTTPError: see :func:`read_body`; also if it takes too long.
        TransferError: the operation was abandoned.
    """
    if (idle_s := Timeouts(settings.transfer_timeout_s).idle_s) is not None:
        limit_reading(response, _LISTING_TIMEOUTS * idle_s)
    size = keys = line = 0
    for block in read_body(response, request):
        size += len(block)
        keys += block.count(b"\n")
        newline = block.rfind(b"\n")
        line = line + len(block) if newline < 0 else len(block) - newline - 1
        if line > _MAX_KEY_BYTES:
            raise _endless_listing_error(request, f"a line of more than {_MAX_KEY_BYTES:,} bytes")
        if size > _MAX_LISTING_BYTES:
            raise _endless_listing_error(request, f"more than {_MAX_LISTING_BYTES:,} bytes")
        if keys > _MAX_LISTING_KEYS:
            raise _endless_listing_error(request, f"more than {_MAX_LISTING_KEYS:,} lines")
        yield block


def _endless_listing_error(request: Request, found: str) -> UnexpectedResponseError:
    reason = (
        f"{request.uri.authority} answers with {found}, which no listing of BucketFS has. "
        "Check host and port."
    )
    return request.error(UnexpectedResponseError, reason)


class FixedLengthBody:
    """The body of an upload from a file, which never exceeds the announced length.

    A log file may grow while it is uploaded; the server would read bytes beyond the
    Content-Length as the next request.

    Args:
        file: an open file, read from its current position.
        size: bytes to send.
        name: the file's name, for errors.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._left = size
        self._name = name

    def read(self, amount: int = -1) -> bytes:
        """Return the next bytes, at most ``amount``; empty at the end.

        Raises:
            IncompleteTransferError: the file has become shorter.
            TransferError: the upload was abandoned.
        """
        check_abandoned()
        amount = self._left if amount < 0 else min(amount, self._left)
        try:
            data = self._file.read(amount)
        except OSError as error:
            # urllib3 would treat it as an error of the connection
            raise IncompleteTransferError(f"Cannot read {self._name}: {error}") from error
        self._left -= len(data)
        if amount and not data:
            raise IncompleteTransferError(
                f"{self._name} became shorter while it was uploaded; nothing was stored. "
                "Log it once it is complete."
            )
        return data


def file_body(file: BinaryIO, start: int, name: str) -> tuple[FixedLengthBody, int]:
    """Return a body with the content of a seekable file from ``start`` on, and its size in bytes.

    Args:
        file: an open file, whose position is set to ``start``.
        start: position of the first byte to send.
        name: the file's name, for errors.

    Raises:
        OSError: the file's size cannot be determined.
    """
    try:
        size = max(0, file.seek(0, os.SEEK_END) - start)
        file.seek(start)
    except OSError as error:
        raise OSError(
            f"Cannot upload {name}: its size cannot be determined ({error.strerror or error}). "
            "Copy its content into a regular file, and upload that one."
        ) from error
    return FixedLengthBody(file, size, name), size


def first_bytes(chunks: Iterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Read a stream until it ends, or until more than ``limit`` bytes are read.

    Returns:
        The bytes, and whether the stream has ended.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        if len(buffer) > limit:
            return bytes(buffer), False
    return bytes(buffer), True


def chunked_body(first: bytes, rest: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield ``first``, and then the rest of the stream that it was read from.

    Raises:
        IncompleteTransferError: the stream's source failed; urllib3 would treat its ``OSError``
            as one of the connection.
    """
    yield first
    try:
        # an empty chunk would end the body
        yield from filter(None, rest)
    except OSError as error:
        raise IncompleteTransferError(f"The source of {name} failed: {error}") from error
