"""The index of a store on disk: a journal of changes, one JSON document per line."""

from __future__ import annotations

import fcntl
import json
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Blob(NamedTuple):
    """One immutable content: the number that names its file, and its size in bytes."""

    number: int
    size: int


Index = dict[str, dict[str, Blob]]
"""Bucket name to key to blob, in the order of upload."""


class Journal:
    """Remembers an index across restarts.

    A line is written per change and compacted at the next start. A line cut short by a crash is
    the last one and is ignored.

    Args:
        directory: Existing directory that holds the journal.

    Raises:
        OSError: Another server uses the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "index.jsonl"
        self._lock_file = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._lock_file.close()
            raise OSError(
                f"{directory} is in use by another embedded BucketFS: stop it, "
                "or choose another data directory"
            ) from exc
        self._lines: IO[str] | None = None

    def load(self) -> Index:
        """Read the index and compact the journal; call it once, before `record`."""
        index: Index = {}
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
