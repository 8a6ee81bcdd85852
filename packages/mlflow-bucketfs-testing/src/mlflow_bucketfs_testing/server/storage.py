"""The objects: immutable blobs on disk under opaque names, and an index in memory or a journal.

Opaque names, because ``d`` and ``d/x`` can both be objects (bucketfs-client, DownloadCommandIT).
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import FileIO
    from pathlib import Path

# Bodies up to this size are written at once; longer ones in portions of at least this size.
PORTION_BYTES = 256 * 1024


class Blob(NamedTuple):
    """One immutable content: the number that names its file, and its size in bytes."""

    number: int
    size: int


_Index = dict[str, dict[str, Blob]]
"""Bucket name to key to blob, in the order of upload."""


class Store:
    """All buckets' objects; thread-safe.

    A change is complete or has not happened: an upload is published under its key in one step,
    and readers of the previous content go on reading it.

    Args:
        directory: existing directory to keep the objects in.
        persistent: whether the index is kept on disk too, so that a later store in the same
            directory has the same objects.

    Raises:
        OSError: ``persistent``, and another store uses the directory.
    """

    def __init__(self, directory: Path, *, persistent: bool) -> None:
        self.lock = threading.RLock()
        """Held while the index changes and while ``on_change`` runs."""
        self.on_change: Callable[[str, str], None] = lambda _bucket, _key: None
        """Called with bucket and key after each change."""
        self._blobs = directory / "blobs"
        self._blobs.mkdir(exist_ok=True)
        self._journal = _Journal(directory) if persistent else None
        self._index: _Index = self._journal.load() if self._journal else {}
        used = {blob.number for keys in self._index.values() for blob in keys.values()}
        for leftover in self._blobs.iterdir():  # partial uploads, left by a crash
            if int(leftover.name) not in used:
                leftover.unlink()
        self._next_number = max(used, default=0) + 1

    def find(self, bucket: str, key: str) -> Blob | None:
        """Return the blob that a key has now."""
        return self._index.get(bucket, {}).get(key)

    def blob_path(self, blob: Blob) -> Path:
        """Return the path of a blob's file; it may vanish at any time unless `lock` is held."""
        return self._blobs / str(blob.number)

    def open(self, bucket: str, key: str) -> tuple[FileIO, int] | None:
        """Open an object unbuffered; return file and size in bytes, or None without such a key."""
        with self.lock:
            blob = self.find(bucket, key)
            return (self.blob_path(blob).open("rb", buffering=0), blob.size) if blob else None

    def upload(self) -> Upload:
        """Begin a new content, to be filled and then published or discarded."""
        with self.lock:
            number = self._next_number
            self._next_number += 1
        return Upload(self, number, str(self._blobs / str(number)))

    def delete(self, bucket: str, key: str) -> bool:
        """Remove a key; False if there was none."""
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
        """Make a complete blob the content of a key; None removes the key."""
        with self.lock:
            keys = self._index.setdefault(bucket, {})
            old = keys.pop(key, None)
            if blob:
                keys[key] = blob
            if self._journal:
                self._journal.record(bucket, key, blob)
            self.on_change(bucket, key)
            if old:
                self.blob_path(old).unlink()


class Upload:
    """One content on its way in; not thread-safe.

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
        """Append data; True asks for a `flush`, which the caller may run in a thread."""
        self._parts.append(data)
        self._buffered_bytes += len(data)
        self.size += len(data)
        return self._buffered_bytes >= PORTION_BYTES

    def flush(self) -> None:
        """Write what is held in memory."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._descriptor = os.open(self._path, flags, 0o644)
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
        """Drop everything, unless it was published; nothing changes for readers."""
        self._close()
        if self._on_disk and not self._published:
            os.unlink(self._path)  # noqa: PTH108 -- a str: making paths is felt at 200,000 keys

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Journal:
    """Remembers an index across restarts.

    A line is written per change and compacted at the next start. A line truncated by a crash is
    the last one and is ignored.

    Args:
        directory: existing directory that holds the journal.

    Raises:
        OSError: Another server uses the directory.
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
        self._lines: IO[str] | None = None

    def load(self) -> _Index:
        """Read the index and compact the journal; call it once, before `record`."""
        index: _Index = {}
        if self._path.exists():
            with self._path.open(encoding="utf-8") as lines:
                for line in lines:
                    if line.endswith("\n"):
                        bucket, key, *blob = json.loads(line)
                        keys = index.setdefault(bucket, {})
                        keys.pop(key, None)
                        if blob:
                            keys[key] = Blob(*blob)
        fresh = self._path.with_suffix(".new")
        self._lines = fresh.open("w", encoding="utf-8")
        for bucket, keys in index.items():
            for key, blob_kept in keys.items():
                self._write(bucket, key, blob_kept)
        self._lines.flush()
        fresh.replace(self._path)
        return index

    def record(self, bucket: str, key: str, blob: Blob | None) -> None:
        """Note that a key has this content now, or is gone."""
        self._write(bucket, key, blob)
        if self._lines is not None:
            self._lines.flush()

    def close(self) -> None:
        """Release the directory."""
        if self._lines is not None:
            self._lines.close()
        # unlocked rather than just closed: a forked child may hold a copy of the descriptor
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._lock_file.close()

    def _write(self, bucket: str, key: str, blob: Blob | None) -> None:
        if self._lines is not None:
            self._lines.write(json.dumps([bucket, key, *(blob or ())]) + "\n")


def _parents(key: str) -> Iterable[str]:
    position = key.find("/")
    while position >= 0:
        yield key[:position]
        position = key.find("/", position + 1)
