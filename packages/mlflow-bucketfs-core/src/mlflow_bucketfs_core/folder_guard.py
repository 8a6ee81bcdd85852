"""Refuse an upload to ``d/x`` if ``d`` is already a file.

The server would answer 200 and drop the upload, or never answer (test ``DownloadCommandIT`` of
bucketfs-client; Exasol's knowledge base, "java-vm cannot find buckets jar").
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import PathBlockedError
from mlflow_bucketfs_core.uri import parent_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_bucketfs_core.uri import BucketFSUri

# Folders remembered per bucket, the newest ones: a tracking server that runs for months writes
# into a new folder for every run.
_MAX_FOLDERS = 100_000
# How long a listing is trusted: other clients may replace a folder by a file of its name.
_FRESH_S = 60.0


class FolderGuard:
    """The folders of one bucket that are not files, by a recent listing.

    Listing the complete bucket is slow. So a result is valid for a minute, and every listing checks
    all remembered folders again. Within this minute, other clients' changes are not noticed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # by folder, the time of the last listing without a file of this name
        self._known: dict[str, float] = {}

    def check(
        self,
        bucket: BucketFSUri,
        keys: Iterable[str],
        list_files: Callable[[set[str]], set[str]],
        *,
        refresh: bool,
    ) -> set[str]:
        """Raise if a file is in the way of one of these keys.

        Args:
            bucket: the bucket, for the message.
            keys: the keys to be written; if empty, the bucket is not listed.
            list_files: lists the bucket and returns those of the given keys and folders that are
                files.
            refresh: whether to list the bucket even if all folders of these keys were checked
                recently.

        Returns:
            The keys that exist already; empty if the bucket was not listed.

        Raises:
            PathBlockedError: a file is in the way; the message names it.
        """
        keys = set(keys)
        folders = {folder for key in keys for folder in parent_folders(key)}
        oldest = time.monotonic() - _FRESH_S
        with self._lock:
            if not keys or (
                not refresh and all(self._known.get(folder, oldest) > oldest for folder in folders)
            ):
                return set()
            known = set(self._known)
        asked_at = time.monotonic()
        files = list_files(keys | folders | known)
        with self._lock:
            for name in files:
                self._known.pop(name, None)
            # without the folders that another thread has forgotten meanwhile
            seen = (known & self._known.keys()) | (folders - files)
            self._known.update(dict.fromkeys(seen, asked_at))
            while len(self._known) > _MAX_FOLDERS:
                del self._known[next(iter(self._known))]
        if blocking := sorted(folders & files):
            raise PathBlockedError(
                f"Cannot write below '{bucket.joinpath(blocking[0])}': a file of this name is in "
                "the way, and BucketFS would silently lose everything written below it. Delete or "
                "rename that file first, or choose another folder."
            )
        return keys & files

    def forget(self, key: str) -> None:
        """Forget the folder ``key``; called before a file is written under this name."""
        with self._lock:
            self._known.pop(key, None)


_guards: dict[tuple[str, str], FolderGuard] = {}
_guards_lock = threading.Lock()


def folder_guard(bucket: BucketFSUri) -> FolderGuard:
    """Return this process's guard for a bucket."""
    with _guards_lock:
        return _guards.setdefault((bucket.endpoint, bucket.bucket), FolderGuard())


def _after_fork() -> None:
    global _guards_lock  # noqa: PLW0603 -- another thread may have held the lock at the fork
    _guards_lock = threading.Lock()
    _guards.clear()


os.register_at_fork(after_in_child=_after_fork)
