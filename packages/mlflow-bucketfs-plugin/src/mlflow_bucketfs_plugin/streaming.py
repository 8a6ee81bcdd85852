"""Uploads from a stream, so that a proxying tracking server keeps no temporary copy."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED
from mlflow_bucketfs_core.bucket import STREAM_BUFFER_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator
    from concurrent.futures import Future

    from mlflow_bucketfs_core import Bucket

try:
    from mlflow.store.artifact.artifact_repo import StreamUploadMixin
except ImportError:  # MLflow before 3.15 spools to a file and calls log_artifact

    class StreamUploadMixin:  # type: ignore[no-redef]
        """Stands in for the class that this MLflow does not have."""


__all__ = ["StreamUploadMixin", "upload_from_client"]

# What all uploads of a process may collect on the event loop.
_MOST_COLLECTED_BYTES = 32 * STREAM_BUFFER_BYTES
_BLOCK_BYTES = 1 << 20


async def upload_from_client(bucket: Bucket, key: str, chunks: AsyncIterable[bytes]) -> None:
    """Upload what a client of a tracking server sends, while the event loop serves others.

    The first 8 MiB are collected on the event loop, where a silent client costs no thread. What
    is longer, or comes while the process has collected 256 MiB, needs a thread until it has
    ended. The threads are not those that MLflow's downloads need, and uploads that are collected
    do not wait for the threads of those that are not: there are ``max_workers`` for either.

    An exception of the stream, such as the one for a client that went away, ends the upload, and
    so does the end of the awaiting task; nothing is stored then.

    Args:
        bucket: has the password to write.
        key: the object to be.
        chunks: read on the running event loop, one piece at a time.

    Raises:
        MlflowException: the client was silent for ``client_timeout_s``; nothing was stored.
        BucketFSError: see :meth:`Bucket.upload_stream`.
    """
    loop = asyncio.get_running_loop()
    stream = _ClientStream(chunks, loop, bucket.settings.client_timeout_s)
    process = _process
    process.streams.add(stream)
    try:
        while process.may_collect() and stream.may_collect():
            await stream.collect()
        kind = "collected" if stream.has_ended else "streamed"
        threads = process.threads(kind, bucket.settings.max_workers)
        await loop.run_in_executor(threads, bucket.upload_stream, key, stream)
    finally:
        stream.close()
        process.streams.discard(stream)


class _ClientStream:
    """An asynchronous stream as a thread sees it.

    Args:
        chunks: the stream.
        loop: reads it.
        silence_s: longest wait for a piece, in seconds.

    Attributes:
        collected: number of bytes that were collected on the event loop.
        has_ended: whether all of the stream was read.
    """

    def __init__(
        self, chunks: AsyncIterable[bytes], loop: asyncio.AbstractEventLoop, silence_s: float
    ) -> None:
        self.collected = 0
        self.has_ended = False
        self._source = aiter(chunks)
        self._loop = loop
        self._silence_s = silence_s
        self._buffer = bytearray()
        self._pending: Future[bytes | None] | None = None
        self._closed = threading.Event()

    def may_collect(self) -> bool:
        """Return whether the stream goes on and its buffer has room."""
        return not self.has_ended and self.collected <= STREAM_BUFFER_BYTES

    async def collect(self) -> None:
        """Keep the next piece for the thread."""
        piece = await self._next_piece()
        if piece is None:
            self.has_ended = True
        else:
            self._buffer += piece
            self.collected += len(piece)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._buffer:
            block = bytes(self._buffer[:_BLOCK_BYTES])
            del self._buffer[:_BLOCK_BYTES]
            return block
        if self.has_ended:
            raise StopIteration
        if self._closed.is_set():
            raise CancelledError
        self._pending = asyncio.run_coroutine_threadsafe(self._next_piece(), self._loop)
        if self._closed.is_set():
            # meanwhile, and close() may have seen the piece before this one
            self._pending.cancel()
        piece = self._pending.result()
        if piece is None:
            self.has_ended = True
            raise StopIteration
        return piece

    async def _next_piece(self) -> bytes | None:
        # not asyncio.wait_for: before Python 3.12 it may swallow the end of the awaiting task
        piece = asyncio.create_task(self._read())
        try:
            await asyncio.wait([piece], timeout=self._silence_s)
            if piece.done():
                return piece.result()
        finally:
            piece.cancel()
        raise MlflowException(
            f"The client sent nothing for {self._silence_s:g} s in the middle of an upload; "
            "nothing was stored. EXA_BUCKETFS_CLIENT_TIMEOUT sets how long the server waits.",
            error_code=DEADLINE_EXCEEDED,
        )

    async def _read(self) -> bytes | None:
        # not anext(…, None): where __anext__ raises, CPython 3.11.7 then ends with a crash
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            return None

    def close(self) -> None:
        """Make the thread's next, or present, wait for a piece end with an error."""
        self._closed.set()
        if self._pending is not None:
            self._pending.cancel()


class _Process:
    """What the uploads of a process share; a forked child, where no thread lives, starts anew."""

    def __init__(self) -> None:
        self.streams: set[_ClientStream] = set()
        self.threads = lru_cache(maxsize=2)(_new_threads)

    def may_collect(self) -> bool:
        """Return whether there is memory for more uploads that wait for their clients."""
        return sum(stream.collected for stream in tuple(self.streams)) < _MOST_COLLECTED_BYTES


def _new_threads(kind: str, number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix=f"BucketFS_{kind}")


_process = _Process()


def _forget_process() -> None:
    global _process  # noqa: PLW0603 -- see _Process
    _process = _Process()


os.register_at_fork(after_in_child=_forget_process)
