"""Operations on one bucket, each retried as a whole."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_bucketfs_core.errors import (
    BucketNotFoundError,
    InvalidKeyError,
    MissingCredentialsError,
)
from mlflow_bucketfs_core.http.failures import TransientFailure
from mlflow_bucketfs_core.http.operation import Operation
from mlflow_bucketfs_core.http.pool import ServicePool, shared_pool
from mlflow_bucketfs_core.http.request import exchange, read_body
from mlflow_bucketfs_core.http.retry import RetryLoop
from mlflow_bucketfs_core.uri import normalize_key, quote_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from urllib3 import BaseHTTPResponse

    from mlflow_bucketfs_core.settings import ConnectionSettings
    from mlflow_bucketfs_core.uri import BucketFSUri

_Result = TypeVar("_Result")


class Channel:
    """What all operations of a bucket have in common.

    Args:
        uri: the bucket's root.
        settings: credentials, timeouts, retries.
    """

    def __init__(self, uri: BucketFSUri, settings: ConnectionSettings) -> None:
        self.uri = uri
        self.settings = settings
        self._root_url = f"{uri.endpoint}/{quote_key(uri.bucket)}"

    def pool(self, *, streams: bool = False) -> ServicePool:
        """Return this process's pool; ask anew for every operation, because of forks."""
        return shared_pool(self.uri.endpoint, self.settings, streams=streams)

    def operation(self, verb: str, key: str) -> Operation:
        """Say what is about to be done to an object.

        Raises:
            InvalidKeyError: the key cannot be one, or is empty.
        """
        normalized = normalize_key(key)
        if not normalized:
            raise InvalidKeyError(f"Cannot {verb} {self.uri}: the key of an object is missing.")
        return Operation(verb, self.uri.joinpath(normalized))

    def write_operation(self, verb: str, key: str) -> Operation:
        """Say what is about to be written.

        Raises:
            MissingCredentialsError: no password is set.
            InvalidKeyError: see :meth:`operation`.
        """
        operation = self.operation(verb, key)
        self.require_password(verb)
        return operation

    def require_password(self, verb: str) -> None:
        """Return if there is a password.

        Raises:
            MissingCredentialsError: there is none.
        """
        if self.settings.password is None:
            raise MissingCredentialsError(
                f"Cannot {verb} artifacts in {self.uri} without a password: set "
                "EXA_BUCKETFS_PASSWORD to the bucket's write password."
            )

    def get(
        self, operation: Operation, *, streams: bool = False
    ) -> AbstractContextManager[BaseHTTPResponse]:
        """Send one GET; see :func:`~mlflow_bucketfs_core.http.request.exchange`."""
        pool = self.pool(streams=streams)
        url = self._url(operation)
        return exchange(pool, "GET", url, operation, timeout_s=pool.timeouts.idle_s)

    def scan(self, consume: Callable[[Iterator[bytes]], _Result]) -> _Result:
        """Read the bucket's listing.

        Args:
            consume: makes the result of what the server sends; called anew in every try.

        Raises:
            BucketFSError: the last try's failure.
        """
        operation = Operation("list", self.uri)

        def attempt() -> _Result:
            with self.get(operation) as response:
                return consume(read_body(response, operation))

        return self.retry(attempt)

    def exists(self) -> bool:
        """Tell whether the bucket exists, by the beginning of its listing."""
        operation = Operation("list", self.uri)

        def attempt() -> bool:
            with suppress(BucketNotFoundError), self.get(operation):
                return True
            return False

        return self.retry(attempt)

    def delete(self, operation: Operation) -> None:
        """Send one DELETE."""
        pool = self.pool()
        url = self._url(operation)
        with exchange(pool, "DELETE", url, operation, timeout_s=pool.timeouts.idle_s):
            pass

    def put(self, operation: Operation, body: Any, size: int | None) -> None:
        """Send one PUT.

        Args:
            operation: what is being uploaded.
            body: see :meth:`ServicePool.request`.
            size: bytes in the body, ``None`` if not known.
        """
        pool = self.pool(streams=size is None)
        with pool.upload_in_flight() as in_flight:
            timeout_s = pool.timeouts.upload_answer_s(size, in_flight)
            url = self._url(operation)
            with exchange(pool, "PUT", url, operation, body=body, size=size, timeout_s=timeout_s):
                pass

    def retry(self, attempt: Callable[[], _Result], *, repeatable: bool = True) -> _Result:
        """Call ``attempt`` until it succeeds or the budget is used up.

        Args:
            attempt: one complete try.
            repeatable: whether there can be a second one.

        Raises:
            BucketFSError: the last try's failure.
        """
        if repeatable:
            return RetryLoop(self.settings, self.uri.authority).run(attempt)
        try:
            return attempt()
        except TransientFailure as failure:
            raise failure.error from failure.__cause__

    def _url(self, operation: Operation) -> str:
        path = operation.uri.path
        return f"{self._root_url}/{quote_key(path)}" if path else self._root_url
