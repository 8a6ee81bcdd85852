"""Objects as immutable blobs on disk, and an index of them that a journal can persist.

The blobs have opaque names, because ``d`` and ``d/x`` can both be objects (bucketfs-client,
DownloadCommandIT).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import FileIO
    from pathlib import Path

_logger = logging.getLogger("mlflow_bucketfs_testing.server")

# Bodies up to this size are written at once; longer ones in portions of at least this size.
PORTION_BYTES = 256 * 1024


class Blob(NamedTuple):
    """One immutable content: the number that names its file, and its size in bytes."""

    number: int
    size: int


_Index = dict[str, dict[str, Blob]]
"""Bucket name to key to blob, in the order of upload."""

# The mount's files are hard links to blobs, so they must not be writable.
BLOB_MODE = 0o444


class Store:
    """The objects of all buckets; thread-safe.

    Changes are atomic, also on a full disk: an upload is published under its key in one step, and
    open readers keep the previous content.

    Args:
        directory: existing directory to keep the objects in.
        persistent: whether the index is kept on disk too, so that a later store in the same
            directory has the same objects.

    Raises:
        OSError: ``persistent`` is True and another store uses the directory.
    """

    def __init__(self, directory: Path, *, persistent: bool) -> None:
        self.lock = threading.RLock()
        """Held while the index changes and while ``on_change`` runs."""
        self.on_change: Callable[[str, str, Blob | None], None] = lambda *_: None
        """Called with bucket, key and new blob before a change is visible; raising undoes it."""
        self._blobs = directory / "blobs"
        self._blobs.mkdir(exist_ok=True)
        self._journal = _Journal(directory) if persistent else None
        self._index: _Index = self._journal.load() if self._journal else {}
        # above the numbers of lost blobs too: the journal may still contain them
        self._next_number = max(self._numbers(), default=0) + 1
        self._forget_lost()
        if self._journal:
            self._journal.compact(self._index)
        used = {str(number) for number in self._numbers()}
        for leftover in self._blobs.iterdir():  # partial uploads, left by a crash
            if leftover.name.isdecimal() and leftover.name not in used:
                leftover.unlink()

    def find(self, bucket: str, key: str) -> Blob | None:
        """Return the current blob of a key; None if there is no such key."""
        return self._index.get(bucket, {}).get(key)

    def blob_path(self, blob: Blob) -> Path:
        """Return the path of a blob's file, which may be removed unless `lock` is held."""
        return self._blobs / str(blob.number)

    def open(self, bucket: str, key: str) -> tuple[FileIO, int] | None:
        """Open an object unbuffered; return file and size in bytes, or None for a missing key."""
        with self.lock:
            blob = self.find(bucket, key)
            return (self.blob_path(blob).open("rb", buffering=0), blob.size) if blob else None

    def upload(self) -> Upload:
        """Start the upload of an object, which is then published under a key or discarded."""
        with self.lock:
            number = self._next_number
            self._next_number += 1
        return Upload(self, number, str(self._blobs / str(number)))

    def delete(self, bucket: str, key: str) -> bool:
        """Remove a key; return whether it existed."""
        with self.lock:
            known = self.find(bucket, key) is not None
            if known:
                self.change(bucket, key, None)
            return known

    def keys(self, bucket: str) -> list[str]:
        """Return all keys of a bucket at one moment, oldest upload first."""
        with self.lock:
            return list(self._index.get(bucket, ()))

    def file_in_the_way(self, bucket: str, key: str) -> bool:
        """Return whether a parent "folder" of the key is itself a key."""
        keys = self._index.get(bucket, {})
        return any(parent in keys for parent in _parents(key))

    def clear(self) -> None:
        """Remove all keys of all buckets."""
        for bucket in list(self._index):
            for key in self.keys(bucket):
                self.delete(bucket, key)

    def close(self) -> None:
        """Stop using the directory."""
        if self._journal:
            self._journal.close()

    def change(self, bucket: str, key: str, blob: Blob | None) -> None:
        """Make a complete blob the content of a key; None removes the key.

        Raises:
            OSError: the journal or the mount cannot be written; nothing has changed.
        """
        with self.lock:
            # The journal first, the index last: a failure leaves both unchanged.
            if self._journal:
                self._journal.record(bucket, key, blob)
            try:
                self.on_change(bucket, key, blob)
            except BaseException:
                if self._journal:
                    self._journal.undo()
                raise
            keys = self._index.setdefault(bucket, {})
            old = keys.pop(key, None)
            if blob:
                keys[key] = blob
            if old:
                with suppress(OSError):  # the next start tries to remove it
                    self.blob_path(old).unlink()

    def _numbers(self) -> list[int]:
        return [blob.number for keys in self._index.values() for blob in keys.values()]

    def _forget_lost(self) -> None:
        """Drop keys whose blob is missing or truncated, after a crash or a manual change."""
        with os.scandir(self._blobs) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries}
        for bucket, keys in self._index.items():
            lost = [key for key, blob in keys.items() if sizes.get(str(blob.number)) != blob.size]
            for key in lost:
                message = "%r in the bucket %r is lost: its content is missing or truncated"
                _logger.warning(message, key, bucket)
                del keys[key]


class Upload:
    """The content of one object while it is uploaded; not thread-safe.

    Up to `PORTION_BYTES` are held in memory, so a small object costs one write.
    """

    def __init__(self, store: Store, number: int, path: str) -> None:
        self.size = 0
        """Bytes added so far."""
        self._store = store
        self._number = number
        self._path = path
        self._parts: list[bytes] = []
        self._buffered_bytes = 0
        self._descriptor: int | None = None
        self._on_disk = False
        self._published = False

    def add(self, data: bytes) -> bool:
        """Append data; return True if the caller should `flush`, which may run in a thread."""
        self._parts.append(data)
        self._buffered_bytes += len(data)
        self.size += len(data)
        return self._buffered_bytes >= PORTION_BYTES

    def flush(self) -> None:
        """Write the data held in memory."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._descriptor = os.open(self._path, flags, BLOB_MODE)
            self._on_disk = True
        data = memoryview(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts = []
        self._buffered_bytes = 0
        while data:
            data = data[os.write(self._descriptor, data) :]

    def publish(self, bucket: str, key: str) -> None:
        """Make this the content of a key, in one step."""
        self.flush()
        self._close()
        self._store.change(bucket, key, Blob(self._number, self.size))
        self._published = True

    def discard(self) -> None:
        """Delete the uploaded data, unless it was published."""
        self._close()
        if self._on_disk and not self._published:
            os.unlink(self._path)  # noqa: PTH108 -- a str: Path objects slow down 200,000 keys

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Journal:
    """A file that keeps an index across restarts.

    Each change appends a line, and the next start compacts them. A line truncated by a crash is
    the last one and is ignored; other unreadable lines are skipped with a warning.

    Args:
        directory: existing directory that holds the journal.

    Raises:
        OSError: another server uses the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "index.jsonl"
        self._lock_file = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise OSError(
                f"{directory} is in use by another embedded BucketFS: stop it, "
                "or choose another data directory"
            ) from error
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._length = self._previous_length = 0

    def load(self) -> _Index:
        """Read the index; call it once, before the other methods."""
        index: _Index = {}
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._length += len(line)
                try:
                    bucket, key, *blob = json.loads(line)
                    content = Blob(*blob) if blob else None
                except (ValueError, TypeError):
                    _logger.warning("%s: not a line of this journal: %r", self._path, line)
                    continue
                keys = index.setdefault(bucket, {})
                keys.pop(key, None)
                if content:
                    keys[key] = content
        os.ftruncate(self._descriptor, self._length)
        return index

    def compact(self, index: _Index) -> None:
        """Rewrite the index with one line per key; on a full disk, keep the existing lines."""
        data = b"".join(
            _line(bucket, key, blob) for bucket, keys in index.items() for key, blob in keys.items()
        )
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(data)
        except OSError as error:
            _logger.warning("%s was not compacted: %s", self._path, error)
            fresh.unlink(missing_ok=True)
            return
        fresh.replace(self._path)
        os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND)
        self._length = len(data)

    def record(self, bucket: str, key: str, blob: Blob | None) -> None:
        """Append the new content of a key, or its removal.

        Raises:
            OSError: the line cannot be written; the journal is unchanged.
        """
        self._previous_length = self._length
        data = memoryview(_line(bucket, key, blob))
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._length += written
                data = data[written:]
        except OSError:
            self.undo()
            raise

    def undo(self) -> None:
        """Remove the last record."""
        os.ftruncate(self._descriptor, self._previous_length)
        self._length = self._previous_length

    def close(self) -> None:
        """Release the directory."""
        os.close(self._descriptor)
        # unlocked explicitly, because a forked child may have a copy of the descriptor
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._lock_file.close()


def _line(bucket: str, key: str, blob: Blob | None) -> bytes:
    return json.dumps([bucket, key, *(blob or ())]).encode() + b"\n"


def _parents(key: str) -> Iterable[str]:
    position = key.find("/")
    while position >= 0:
        yield key[:position]
        position = key.find("/", position + 1)
