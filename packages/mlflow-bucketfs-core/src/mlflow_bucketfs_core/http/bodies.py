"""Bodies of uploads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import IncompleteTransferError
from mlflow_bucketfs_core.http.retry import check_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


class FixedLengthBody:
    """A file sent with the length that it had at the beginning.

    A log file may grow while it is uploaded; more bytes than the Content-Length announced would
    be taken for the next request.

    Args:
        file: read from its current position.
        size: bytes to send.
        name: what to call the file in an error.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._left = size
        self._name = name

    def read(self, amount: int = -1) -> bytes:
        """Return the next bytes, at most ``amount``; none at the end.

        Raises:
            IncompleteTransferError: the file has become shorter.
            TransferError: nobody wants the upload any more.
        """
        check_abandoned()
        amount = self._left if amount < 0 else min(amount, self._left)
        try:
            data = self._file.read(amount)
        except OSError as error:
            # urllib3 would take it for an error of the connection
            raise IncompleteTransferError(f"Cannot read {self._name}: {error}") from error
        self._left -= len(data)
        if amount and not data:
            raise IncompleteTransferError(
                f"{self._name} became shorter while it was uploaded; nothing was stored. "
                "Log it once it is complete."
            )
        return data


def file_body(file: BinaryIO, start: int, name: str) -> tuple[FixedLengthBody, int]:
    """Return what a seekable file holds from ``start`` on, and how many bytes that are.

    Args:
        file: may be read before; is rewound to ``start``.
        start: position of the first byte to send.
        name: what to call the file in an error.
    """
    size = max(0, file.seek(0, os.SEEK_END) - start)
    file.seek(start)
    return FixedLengthBody(file, size, name), size


def first_bytes(chunks: Iterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Take bytes off a stream until it ends or more than ``limit`` are there.

    Returns:
        the bytes, and whether the stream has ended.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        if len(buffer) > limit:
            return bytes(buffer), False
    return bytes(buffer), True


def chunked_body(first: bytes, rest: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield a stream whose beginning was already taken off it.

    Raises:
        IncompleteTransferError: the stream's source failed; urllib3 would take its ``OSError``
            for one of the connection.
    """
    yield first
    try:
        # an empty chunk would end the body
        yield from filter(None, rest)
    except OSError as error:
        raise IncompleteTransferError(f"The source of {name} failed: {error}") from error
