"""Uploads from a stream, so that a proxying tracking server keeps no temporary copy."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
    from concurrent.futures import Future

try:
    from mlflow.store.artifact.artifact_repo import StreamUploadMixin
except ImportError:  # MLflow before 3.15 spools to a file and calls log_artifact

    class StreamUploadMixin:  # type: ignore[no-redef]
        """Stands in for the class that this MLflow does not have."""


__all__ = ["StreamUploadMixin", "consume_in_thread"]


async def consume_in_thread(
    chunks: AsyncIterable[bytes], consume: Callable[[Iterator[bytes]], None]
) -> None:
    """Feed an asynchronous stream to a function that blocks, off the event loop.

    An exception of the stream, such as the one for a client that went away, is raised inside of
    ``consume``; so is the end of the awaiting task.

    Args:
        chunks: read on the running event loop, one piece at a time.
        consume: called in a thread with the pieces.
    """
    feed = _Feed(aiter(chunks), asyncio.get_running_loop())
    try:
        await asyncio.to_thread(consume, feed)
    finally:
        feed.close()


class _Feed:
    """The stream as the thread sees it."""

    def __init__(self, source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._pending: Future[bytes | None] | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed.is_set():
            raise CancelledError
        self._pending = asyncio.run_coroutine_threadsafe(self._next_piece(), self._loop)
        if self._closed.is_set():
            # meanwhile, and close() may have seen the piece before this one
            self._pending.cancel()
        piece = self._pending.result()
        if piece is None:
            raise StopIteration
        return piece

    async def _next_piece(self) -> bytes | None:
        return await anext(self._source, None)

    def close(self) -> None:
        """Make the thread's next, or present, wait for a piece end with an error."""
        self._closed.set()
        if self._pending is not None:
            self._pending.cancel()
