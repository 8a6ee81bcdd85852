"""A BucketFS service as a whole: which buckets it has, and by which way it is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.utils import get_environ_proxies, select_proxy

from mlflow_bucketfs_core.errors import BucketNotFoundError, UnexpectedResponseError
from mlflow_bucketfs_core.hosts import check_host_allowed
from mlflow_bucketfs_core.listing import keys_under
from mlflow_bucketfs_core.transport.exchange import exchange, read_body
from mlflow_bucketfs_core.transport.operation import Operation
from mlflow_bucketfs_core.transport.retrying import RetryLoop
from mlflow_bucketfs_core.transport.sessions import shared_session
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
        BucketFSError: see :class:`~mlflow_bucketfs_core.transport.Bucket`.
    """
    check_host_allowed(settings.allowed_hosts, uri)
    operation = Operation("list the buckets of", BucketFSUri(uri.scheme, uri.host, uri.port))

    def attempt() -> list[str]:
        session = shared_session(uri.endpoint, settings)
        timeout_s = session.timeouts.idle_s
        url = f"{uri.endpoint}/"
        with exchange(session, "GET", url, operation, timeout_s=timeout_s) as response:
            return list(keys_under(read_body(response, operation)))

    try:
        return RetryLoop(settings, uri.authority).run(attempt)
    except BucketNotFoundError as error:
        reason = f"{uri.authority} answered 404, which BucketFS does not do. Check host and port."
        raise operation.error(UnexpectedResponseError, reason) from error


def proxy_for(uri: BucketFSUri) -> str | None:
    """Return the URL of the proxy that the environment prescribes for a URI, if there is one.

    It may contain the proxy's password.
    """
    proxies = get_environ_proxies(uri.endpoint)
    proxy: str | None = select_proxy(uri.endpoint, proxies)
    return proxy
