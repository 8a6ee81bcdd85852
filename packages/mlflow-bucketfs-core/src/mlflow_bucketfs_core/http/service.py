"""A BucketFS service as a whole: which buckets it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import BucketNotFoundError, UnexpectedResponseError
from mlflow_bucketfs_core.hosts import check_host_allowed
from mlflow_bucketfs_core.http.operation import Operation
from mlflow_bucketfs_core.http.pool import shared_pool
from mlflow_bucketfs_core.http.request import exchange, read_body
from mlflow_bucketfs_core.http.retry import RetryLoop
from mlflow_bucketfs_core.listing import keys_under
from mlflow_bucketfs_core.uri import BucketFSUri

if TYPE_CHECKING:
    from mlflow_bucketfs_core.settings import ConnectionSettings


def list_buckets(uri: BucketFSUri, settings: ConnectionSettings) -> list[str]:
    """List the buckets of a service: one request, which BucketFS answers without a password too.

    Args:
        uri: names host and port; service, bucket and path in it are ignored.
        settings: credentials and the like.

    Returns:
        The lines of the answer; something that is not BucketFS may send anything.

    Raises:
        HostNotAllowedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` is set and lacks the URI's host.
        UnexpectedResponseError: the answer is none of BucketFS's.
        BucketFSError: see :class:`~mlflow_bucketfs_core.Bucket`.
    """
    check_host_allowed(settings.allowed_hosts, uri)
    operation = Operation("list the buckets of", BucketFSUri(uri.scheme, uri.host, uri.port))

    def attempt() -> list[str]:
        pool = shared_pool(uri.endpoint, settings)
        timeout_s = pool.timeouts.idle_s
        url = f"{uri.endpoint}/"
        with exchange(pool, "GET", url, operation, timeout_s=timeout_s) as response:
            return list(keys_under(read_body(response, operation)))

    try:
        return RetryLoop(settings, uri.authority).run(attempt)
    except BucketNotFoundError as error:
        reason = f"{uri.authority} answered 404, which BucketFS does not do. Check host and port."
        raise operation.error(UnexpectedResponseError, reason) from error
