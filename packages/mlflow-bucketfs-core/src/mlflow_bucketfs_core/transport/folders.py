"""Guard against the upload that BucketFS loses: ``d/x`` where ``d`` is a file.

The server answers 200 and drops the upload, or never answers at all (bucketfs-client
``DownloadCommandIT``; Exasol's knowledge base, "java-vm cannot find buckets jar").
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import PathBlockedError
from mlflow_bucketfs_core.keys import parent_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_bucketfs_core.uri import BucketFSUri

# Folders remembered per bucket before the oldest knowledge is dropped: a tracking server that
# runs for months writes into a new folder for every run.
_MAX_FOLDERS = 100_000


class FolderGuard:
    """What this process knows about the folders of one bucket.

    Asked once per folder: a folder seen as one, or written into, is not asked again, because the
    question costs a listing of the whole bucket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}

    def check(
        self, bucket: BucketFSUri, keys: Iterable[str], list_files: Callable[[set[str]], set[str]]
    ) -> None:
        """Make sure that no file stands in the way of these keys.

        Args:
            bucket: where the keys are, for the message.
            keys: what is about to be written.
            list_files: returns which of these names are files; not called if nothing is unknown.

        Raises:
            PathBlockedError: names the file in the way.
        """
        folders = {folder for key in keys for folder in parent_folders(key)}
        with self._lock:
            unknown = folders - self._known.keys()
        if not unknown:
            return
        if blocking := sorted(list_files(unknown)):
            raise PathBlockedError(
                f"Cannot write below '{bucket.joinpath(blocking[0])}': a file of this name is in "
                "the way, and BucketFS would silently lose everything written below it. Delete or "
                "rename that file first, or choose another folder."
            )
        with self._lock:
            self._known.update(dict.fromkeys(unknown))
            while len(self._known) > _MAX_FOLDERS:
                del self._known[next(iter(self._known))]

    def forget(self, key: str) -> None:
        """Note that ``key`` is about to become a file."""
        with self._lock:
            self._known.pop(key, None)


_guards: dict[tuple[str, str], FolderGuard] = {}
_guards_lock = threading.Lock()


def folder_guard(bucket: BucketFSUri) -> FolderGuard:
    """Return this process's guard for a bucket."""
    with _guards_lock:
        return _guards.setdefault((bucket.endpoint, bucket.bucket), FolderGuard())


def _after_fork() -> None:
    global _guards_lock  # noqa: PLW0603 -- another thread may have held it at the fork
    _guards_lock = threading.Lock()
    _guards.clear()


os.register_at_fork(after_in_child=_after_fork)
