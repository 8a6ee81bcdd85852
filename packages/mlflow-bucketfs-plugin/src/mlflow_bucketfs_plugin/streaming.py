"""Upload from a stream, so that a proxying tracking server keeps no temporary copy."""

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
        """An empty replacement for the missing class."""


__all__ = ["StreamUploadMixin", "upload_from_client"]

# Limit of the data that all uploads of a process collect on the event loop.
_MOST_COLLECTED_BYTES = 32 * STREAM_BUFFER_BYTES
_BLOCK_BYTES = 1 << 20


async def upload_from_client(bucket: Bucket, key: str, chunks: AsyncIterable[bytes]) -> None:
    """Upload the stream of a tracking server's client, without blocking the event loop.

    The first 8 MiB are collected on the event loop, where a stalled client occupies no thread. A
    longer stream, or one that arrives while the process has collected 256 MiB, occupies a thread
    until it ends. Collected and streamed uploads each have a pool of ``max_workers`` threads, so
    that they do not wait for each other, and MLflow's downloads do not wait for them.

    If the stream raises, for example because the client disconnected, or the awaiting task is
    cancelled, the upload ends and nothing is stored.

    Args:
        bucket: the target bucket, with the write password.
        key: the key of the new object.
        chunks: read on the running event loop, one piece at a time.

    Raises:
        MlflowException: the client sent nothing for ``client_timeout_s``; nothing was stored.
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
    """A blocking iterator over an asynchronous stream, for use in a thread.

    Args:
        chunks: the stream.
        loop: the event loop that reads it.
        silence_s: longest wait for a piece, in seconds.

    Attributes:
        collected: number of bytes that were collected on the event loop.
        has_ended: whether the stream was read to its end.
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
        """Return whether the stream has not ended and its buffer is not full."""
        return not self.has_ended and self.collected <= STREAM_BUFFER_BYTES

    async def collect(self) -> None:
        """Read the next piece into the buffer."""
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
            # closed meanwhile: close() may have cancelled the previous piece only
            self._pending.cancel()
        piece = self._pending.result()
        if piece is None:
            self.has_ended = True
            raise StopIteration
        return piece

    async def _next_piece(self) -> bytes | None:
        # not asyncio.wait_for: before Python 3.12, it may drop a cancellation of the awaiting task
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
        # not anext(…, None): CPython 3.11.7 crashes if __anext__ raises
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            return None

    def close(self) -> None:
        """End the thread's current or next wait for a piece with an error."""
        self._closed.set()
        if self._pending is not None:
            self._pending.cancel()


class _Process:
    """State that the uploads of a process share; a forked child, without threads, gets its own."""

    def __init__(self) -> None:
        self.streams: set[_ClientStream] = set()
        self.threads = lru_cache(maxsize=2)(_new_threads)

    def may_collect(self) -> bool:
        """Return whether the uploads of this process may collect more data."""
        return sum(stream.collected for stream in tuple(self.streams)) < _MOST_COLLECTED_BYTES


def _new_threads(kind: str, number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix=f"BucketFS_{kind}")


_process = _Process()


def _forget_process() -> None:
    global _process  # noqa: PLW0603 -- see _Process
    _process = _Process()


os.register_at_fork(after_in_child=_forget_process)
