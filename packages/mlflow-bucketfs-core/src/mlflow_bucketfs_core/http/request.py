"""One request and its answer, with every failure turned into an error of ours."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.http.failures import (
    TransientFailure,
    causes_of,
    check_status,
    incomplete_upload,
    own_error,
    plain_http_to_tls,
    remove_secret_frames,
    translate,
)
from mlflow_bucketfs_core.http.pool import BLOCK_BYTES, was_sent_completely
from mlflow_bucketfs_core.http.retry import check_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from mlflow_bucketfs_core.http.operation import Operation
    from mlflow_bucketfs_core.http.pool import ServicePool

_logger = logging.getLogger(__name__)
# Reading the rest of a short answer is cheaper than a new connection.
_WORTH_DRAINING_BYTES = 64 * 1024
_warned_about_unverifiable_length: set[str] = set()


@contextmanager
def exchange(
    pool: ServicePool,
    method: str,
    url: str,
    operation: Operation,
    *,
    body: Any = None,
    size: int | None = None,
    timeout_s: float | None,
) -> Iterator[BaseHTTPResponse]:
    """Send a request and yield its answer, whose status is 200 and whose body is unread.

    Args:
        pool: where to send it.
        method: ``GET``, ``PUT`` or ``DELETE``.
        url: complete and encoded.
        operation: what is being done, for messages.
        body: see :meth:`ServicePool.request`.
        size: see :meth:`ServicePool.request`.
        timeout_s: seconds to wait for the next bytes; ``None`` for no limit.

    Raises:
        TransientFailure: another try may help; also for failures while the body is read.
        BucketFSError: another try would fail as well.
    """
    started = time.monotonic()
    handled = sys.exc_info()[1]
    try:
        with pool.request(method, url, body=body, size=size, timeout_s=timeout_s) as response:
            sent_completely = was_sent_completely(response)
            try:
                check_status(response, operation)
                if not sent_completely:
                    raise incomplete_upload(operation)
                yield response
            finally:
                _drain(response)
    except HTTPError as error:
        chain = causes_of(error, handled)
        remove_secret_frames(chain)
        if ours := own_error(chain):
            raise ours  # noqa: B904 -- "from error" would make the chain go round in circles
        failure = translate(chain, operation)
        if isinstance(failure, TransientFailure):
            failed = time.monotonic()
            if isinstance(failure.error, TimeoutError):
                elapsed_s = failed - started
                failure.stalled_s = elapsed_s if timeout_s is None else min(elapsed_s, timeout_s)
            elif failure.closed:
                if pool.speaks_https_instead():
                    raise plain_http_to_tls(operation) from error
                failure.stalled_s = time.monotonic() - failed
        # urllib3's complaint about a proxy's URL would show the proxy's password
        raise failure from (None if isinstance(failure, ConfigurationError) else error)
    except BaseException as error:
        # raised by the source of an upload, or Ctrl-C
        remove_secret_frames(causes_of(error, handled))
        raise


def read_body(response: BaseHTTPResponse, operation: Operation) -> Iterator[bytes]:
    """Yield the body as it was stored, neither decoded nor decompressed.

    Its length is verified where the answer announces one (Content-Length or chunks); a body that
    ends by closing the connection cannot be verified, which is told once per server.

    Raises:
        urllib3.exceptions.HTTPError: inside of :func:`exchange`, which translates it.
        TransferError: nobody wants the rest.
    """
    if response.length_remaining is None and not response.chunked:
        authority = operation.uri.authority
        if authority not in _warned_about_unverifiable_length:
            _warned_about_unverifiable_length.add(authority)
            _logger.warning(
                "%s announces no length of what it sends, so that incomplete downloads cannot be "
                "noticed. A proxy between may be the cause.",
                authority,
            )
    while block := response.read(BLOCK_BYTES, decode_content=False):
        check_abandoned()
        yield block


def _drain(response: BaseHTTPResponse) -> None:
    left = response.length_remaining
    if left is not None and left <= _WORTH_DRAINING_BYTES:
        response.drain_conn()
