"""Faults to inject into requests, as networks, proxies and busy servers cause them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Unpack  # in typing since Python 3.11

Action = Literal[
    "status", "reset_before_body", "reset_on_upload", "cut_body", "stall", "trickle", "lose"
]
Framing = Literal["content-length", "chunked", "close"]
"""How the end of a body is marked (``close``: only by the end of the connection)."""
StallPoint = Literal["response", "body", "upload"]
"""The point of a request at which the server pauses, see `.Fault.stall`."""


class RequestFilter(TypedDict, total=False):
    """Filter for the requests that a fault hits; keyword arguments of all constructors of `Fault`.

    Attributes:
        method: HTTP method; None or left out: any.
        bucket: bucket name; None or left out: any.
        key: glob on the decoded key, ``*`` spans slashes; ``""`` is the listing; None or left
            out: any.
        times: how many requests are hit (default 1; 0: none); None: all, until `FaultList.clear`.
    """

    method: str | None
    bucket: str | None
    key: str | None
    times: int | None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of failure and the requests it hits; make it with the constructors below.

    Raises:
        ValueError: a number is out of range, such as ``times=-1``.
    """

    action: Action
    method: str | None = None
    bucket: str | None = None
    key: str | None = None
    times: int | None = 1
    status_code: int = 0
    retry_after: str | None = None
    location: str | None = None
    after_bytes: int | None = None
    framing: Framing | None = None
    reset: bool = False
    seconds: float = 0.0
    at: StallPoint | None = None
    bytes_per_second: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range here, so that the test raises and not the server."""
        if self.times is not None and self.times < 0:
            raise ValueError(f"times={self.times}: use 0 or more, or None for all requests")
        if self.action == "status" and not 200 <= self.status_code <= 999:  # noqa: PLR2004 -- HTTP's
            raise ValueError(f"code={self.status_code}: use a final status, 200 to 999")
        if self.action == "trickle" and self.bytes_per_second < 1:
            raise ValueError(f"bytes_per_second={self.bytes_per_second}: use 1 or more")
        if (self.after_bytes or 0) < 0:
            raise ValueError(f"after={self.after_bytes}: use 0 or more bytes")
        if self.seconds < 0:
            raise ValueError(f"seconds={self.seconds}: use 0 or more")

    @classmethod
    def status(
        cls,
        code: int,
        *,
        retry_after: str | int | None = None,
        location: str | None = None,
        **matching: Unpack[RequestFilter],
    ) -> Fault:
        """Answer with this status at once; the request is not carried out, its body not stored.

        Args:
            code: status code.
            retry_after: value of a ``Retry-After`` header (seconds or a date).
            location: value of a ``Location`` header, for redirects.
            **matching: see `.RequestFilter`.
        """
        return cls(
            action="status",
            status_code=code,
            retry_after=None if retry_after is None else str(retry_after),
            location=location,
            **matching,
        )

    @classmethod
    def reset_before_body(cls, **matching: Unpack[RequestFilter]) -> Fault:
        """Reset the connection (RST) before the first byte of the response.

        A PUT or DELETE has been carried out by then; `reset_on_upload` resets before that.
        """
        return cls(action="reset_before_body", **matching)

    @classmethod
    def reset_in_body(cls, after: int, **matching: Unpack[RequestFilter]) -> Fault:
        """Reset the connection (RST) after this many bytes of the response's body."""
        return cls(action="cut_body", after_bytes=after, reset=True, **matching)

    @classmethod
    def reset_on_upload(cls, after: int, **matching: Unpack[RequestFilter]) -> Fault:
        """Reset the connection (RST) once this many bytes of the request's body are received.

        Nothing is stored. 0 resets before the body is read; a body that is shorter is reset at
        its end. Hits PUTs unless another method is given.
        """
        matching.setdefault("method", "PUT")
        return cls(action="reset_on_upload", after_bytes=after, **matching)

    @classmethod
    def truncate(
        cls, after: int, *, framing: Framing = "content-length", **matching: Unpack[RequestFilter]
    ) -> Fault:
        """Close the connection normally (FIN) after this many bytes of the response's body.

        Args:
            after: bytes of the body that are sent.
            framing: how the header marks the end of the body. ``content-length``: the full
                length (for a listing, which has none, one byte more than is sent); ``chunked``: a
                last chunk, which is not sent; ``close``: not, so that the client cannot detect it.
            **matching: see `.RequestFilter`.
        """
        return cls(action="cut_body", after_bytes=after, framing=framing, **matching)

    @classmethod
    def close_delimited(cls, **matching: Unpack[RequestFilter]) -> Fault:
        """Send the complete body without any length and end it by closing the connection."""
        return cls(action="cut_body", framing="close", **matching)

    @classmethod
    def stall(
        cls, seconds: float, *, at: StallPoint = "response", **matching: Unpack[RequestFilter]
    ) -> Fault:
        """Pause for this time, then continue.

        Args:
            seconds: length of the pause. Stopping the server does not wait for its end.
            at: ``response``: before the first byte of the response (a PUT or DELETE has been
                carried out); ``body``: after the header of the response; ``upload``: before
                reading the request's body (hits PUTs unless another method is given).
            **matching: see `.RequestFilter`.
        """
        if at == "upload":
            matching.setdefault("method", "PUT")
        return cls(action="stall", seconds=seconds, at=at, **matching)

    @classmethod
    def trickle(cls, bytes_per_second: int, **matching: Unpack[RequestFilter]) -> Fault:
        """Send the body of the response at this rate, in 20 pieces per second."""
        return cls(action="trickle", bytes_per_second=bytes_per_second, **matching)

    @classmethod
    def lose(cls, **matching: Unpack[RequestFilter]) -> Fault:
        """Answer a PUT with 200 without storing anything."""
        matching["method"] = "PUT"
        return cls(action="lose", **matching)

    def hits(self, method: str, bucket: str, key: str) -> bool:
        """Return whether the fault hits this request."""
        return (
            self.method in {None, method}
            and self.bucket in {None, bucket}
            and (self.key is None or fnmatchcase(key, self.key))
        )


class FaultList:
    """The faults that are not used up, in the order of injection; thread-safe.

    The first fault that matches a request hits it, which reduces the fault's ``times`` by one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Append a fault, unless its ``times`` is 0."""
        if fault.times != 0:
            with self._lock:
                self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults; those of requests in progress stay in effect."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, bucket: str, key: str) -> Fault | None:
        """Return the first fault for this request and count its use; None if there is none."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.hits(method, bucket, key):
                    if fault.times is not None:
                        left = replace(fault, times=fault.times - 1)
                        self._faults[index : index + 1] = [left] if left.times else []
                    return fault
        return None

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        with self._lock:
            return iter(list(self._faults))
