"""A bounded log of the server's requests, for assertions."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_RECORDS = 50_000


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request and its response.

    Attributes:
        method: HTTP method.
        bucket: bucket name; empty for the list of buckets and for an illegal path.
        key: decoded key; empty for a listing.
        status: status code sent; None if the connection ended before.
        user: user of the Basic credentials, None without any. The password is never kept.
        connection: number of the TCP connection, the same for all requests on it.
        bytes_received: bytes of the request's body that were read.
        bytes_sent: bytes of the response's body that were handed to the connection.
        path: path as received: percent-encoded, without the query.
        started: time at which the request's header was complete, in seconds since the epoch.
        duration_s: seconds from ``started`` until the last byte was handed to the connection.
    """

    method: str
    bucket: str
    key: str
    status: int | None
    user: str | None
    connection: int
    bytes_received: int
    bytes_sent: int
    path: str
    started: float
    duration_s: float


class RequestLog:
    """The latest requests, oldest first; thread-safe.

    A request is logged before its client has the last byte of the response, or the header of an
    error response. So a test can check the log as soon as its client returns. The latest 50,000
    are kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=_MAX_RECORDS)
        self._connections: set[int] = set()

    def add(self, record: RequestRecord) -> None:
        """Append a record."""
        with self._lock:
            self._records.append(record)
            self._connections.add(record.connection)

    def connected(self, connection: int) -> None:
        """Count a new connection, whether or not a request follows."""
        with self._lock:
            self._connections.add(connection)

    def clear(self) -> None:
        """Remove all records and connections."""
        with self._lock:
            self._records.clear()
            self._connections.clear()

    def count(
        self, *, method: str | None = None, status: int | None = None, key: str | None = None
    ) -> int:
        """Count the requests that match all arguments; ``key`` is a glob, ``*`` spans slashes."""
        return sum(
            (method is None or record.method == method)
            and (status is None or record.status == status)
            and (key is None or fnmatchcase(record.key, key))
            for record in self
        )

    @property
    def connections(self) -> int:
        """Number of distinct TCP connections made or used since the last `clear`."""
        with self._lock:
            return len(self._connections)

    @property
    def listings(self) -> int:
        """Number of requests for the listing of a bucket."""
        return sum(
            record.method == "GET" and record.bucket != "" and record.key == "" for record in self
        )

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RequestRecord]:
        with self._lock:
            return iter(list(self._records))

    @overload
    def __getitem__(self, index: int) -> RequestRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RequestRecord]: ...

    def __getitem__(self, index: int | slice) -> RequestRecord | Sequence[RequestRecord]:
        with self._lock:
            return list(self._records)[index]

    def __repr__(self) -> str:
        shown = "\n".join(
            f"  {record.method} {record.path} -> {record.status}" for record in self[-50:]
        )
        return f"<RequestLog of {len(self)} requests, the latest:\n{shown}>"
