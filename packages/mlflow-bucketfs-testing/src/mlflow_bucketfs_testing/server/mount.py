"""The buckets as a UDF sees them: a directory tree of hard links into the store."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.server import archives

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_bucketfs_testing.server.storage import Store


class Mount:
    """Keeps ``<root>/<bucket>/<key>`` in step with a store; thread-safe.

    A plain object is there when its upload is answered, atomically replaced, unless `paused`.
    An archive's tree follows in a background thread (`sync` waits). Where an object and a folder
    have the same name, the folder shows. Links of an archive's tree are never followed: an object
    at or below one replaces it.

    Args:
        store: Where the objects are.
        root: Directory to build the tree in; what is there is removed.
        staging: Directory for what is not complete yet, on the same file system.
        buckets: Names of the buckets, whose directories always exist.
        archive_visible: Whether an archive's own file shows beside its tree.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        staging: Path,
        *,
        buckets: tuple[str, ...],
        archive_visible: bool,
    ) -> None:
        self._store = store
        self._root = root
        self._staging = staging
        self._archive_visible = archive_visible
        self._numbers = itertools.count()
        self._behind: dict[tuple[str, str], None] = {}
        self._paused = False
        self._closing = threading.Event()
        self._unpacker = ThreadPoolExecutor(1, thread_name_prefix="bucketfs-unpack")
        self._unpacking: set[Future[None]] = set()
        for directory in (root, staging):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        with store.lock:
            store.on_change = self._changed
            for bucket in buckets:
                (root / bucket).mkdir()
                for key in store.keys(bucket):
                    self._apply(bucket, key)

    @property
    def paused(self) -> bool:
        """Whether changes wait; setting it to False makes them show."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._catch_up()

    def sync(self) -> None:
        """Show all changes, those that wait too, and return when archives are unpacked."""
        self._catch_up()
        with self._store.lock:
            unpacking = set(self._unpacking)
        for future in wait(unpacking).done:
            future.result()

    def close(self) -> None:
        """Stop following the store; returns once the background thread has stopped."""
        self._closing.set()
        self._unpacker.shutdown(cancel_futures=True)

    def _changed(self, bucket: str, key: str) -> None:
        if self._paused:
            self._behind[bucket, key] = None
        else:
            self._apply(bucket, key)

    def _catch_up(self) -> None:
        with self._store.lock:
            behind, self._behind = self._behind, {}
            for bucket, key in behind:
                self._apply(bucket, key)

    def _apply(self, bucket: str, key: str) -> None:
        """Make the tree show what the store has now; the store's lock is held."""
        stem = archives.stem(key)
        if stem is not None:
            future = self._unpacker.submit(self._refresh_tree, bucket, stem)
            self._unpacking.add(future)
            future.add_done_callback(self._unpacking.discard)
        if self._store.find(bucket, key):
            self._link(bucket, key)
        else:
            self._unlink(bucket, key)

    def _link(self, bucket: str, key: str) -> None:
        """Show an object, if it exists and nothing hides it."""
        blob = self._store.find(bucket, key)
        hidden = archives.stem(key) is not None and not self._archive_visible
        if blob is None or hidden:
            return
        path = self._make_parents(bucket, key)
        if archives.is_folder(path):
            return
        staged = self._stage()
        source = self._store.blob_path(blob)
        try:
            os.link(source, staged)
        except OSError:  # too many links to one file, or a file system without any
            shutil.copyfile(source, staged)
        staged.replace(path)
        # replacing a link by another link to the same file is defined to do nothing at all
        staged.unlink(missing_ok=True)

    def _unlink(self, bucket: str, key: str) -> None:
        path = self._root / bucket / key
        reached = archives.parents_are_folders(self._root / bucket, key.split("/"))
        if archives.is_folder(path) or not reached:
            return
        path.unlink(missing_ok=True)
        self._prune(bucket, path.parent)

    def _prune(self, bucket: str, directory: Path) -> None:
        """Remove directories that became empty; an object of that name shows again."""
        while directory != self._root / bucket:
            try:
                directory.rmdir()
            except OSError:
                return
            self._link(bucket, str(directory.relative_to(self._root / bucket)))
            directory = directory.parent

    def _make_parents(self, bucket: str, key: str) -> Path:
        """Make the folders that a key is in; returns its own path."""
        *folders, name = key.split("/")
        return archives.make_folders(self._root / bucket, folders, replace=True) / name

    def _stage(self) -> Path:
        return self._staging / str(next(self._numbers))

    def _refresh_tree(self, bucket: str, stem: str) -> None:
        """Unpack the archive that a directory comes from, or remove the tree of a deleted one."""
        staged = self._stage()
        staged.mkdir()
        unpacked = any(self._unpack(bucket, stem + suffix, staged) for suffix in archives.SUFFIXES)
        with self._store.lock:
            if self._closing.is_set():
                return
            root = self._root / bucket
            target = self._make_parents(bucket, stem) if unpacked else root / stem
            reached = archives.parents_are_folders(root, stem.split("/"))
            if reached and archives.is_folder(target):
                target.replace(self._stage())
            if unpacked:
                target.unlink(missing_ok=True)
                staged.replace(target)
            # objects of their own under the same folder come on top of the archive's tree
            for key in self._store.keys(bucket):
                if key.startswith(f"{stem}/"):
                    self._apply(bucket, key)
            self._link(bucket, stem)
            if reached and not unpacked:
                self._prune(bucket, target.parent)
        for leftover in self._staging.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)

    def _unpack(self, bucket: str, key: str, directory: Path) -> bool:
        opened = self._store.open(bucket, key)
        if opened is None:
            return False
        with opened[0] as archive:
            if archives.unpack(key, archive, directory, lambda: not self._closing.is_set()):
                return True
        shutil.rmtree(directory)
        directory.mkdir()
        return False
