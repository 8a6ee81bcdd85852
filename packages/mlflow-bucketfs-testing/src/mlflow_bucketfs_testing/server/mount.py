"""The buckets as a UDF sees them: a directory tree of hard links into the store.

Archives cannot write outside their directory. The standard library's checks are not sufficient:
``filter="data"`` of many Python versions accepts the links of CVE-2025-4517, and ``zipfile`` does
not support links. Here nothing is written through a link, and no link can lead out of the tree.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from mlflow_bucketfs_testing.server.storage import BLOB_MODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mlflow_bucketfs_testing.server.storage import Blob, Store

_logger = logging.getLogger("mlflow_bucketfs_testing.server")

# The four that Exasol documents (docs.exasol.com, "Database access in BucketFS") and bucketfs-java
# has. Other archives, such as .tar.bz2, are not unpacked.
_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

_DEFAULT_MODE = 0o444
# Every file is readable by its owner, and none is writable or has setuid or setgid.
_LEAST_MODE = 0o400
_GREATEST_MODE = 0o555
_MAX_TARGET_BYTES = 4096
# Errors of a member that contradicts those before it, or whose name is too long
_MISFITS = {errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class Mount:
    """A directory tree ``<root>/<bucket>/<key>`` that follows a store; thread-safe.

    Unless `paused`, an object is replaced atomically, before its upload is answered. An archive is
    unpacked in a background thread (`sync` waits for it). If an object and a folder have the same
    name, only the folder is visible. Links in an archive's tree are never followed: an object at or
    below a link replaces it.

    Args:
        store: the store to follow.
        root: directory to create for the tree.
        staging: directory to create for incomplete files, on the same file system.
        buckets: names of the buckets, whose directories always exist.
        archive_visible: whether an archive's own file is visible beside its tree.
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
            directory.mkdir(parents=True)
        with store.lock:
            store.on_change = self._changed
            for bucket in buckets:
                (root / bucket).mkdir()
                for key in store.keys(bucket):
                    self._apply(bucket, key, store.find(bucket, key))

    @property
    def paused(self) -> bool:
        """Whether changes are held back; setting it to False applies them."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._catch_up()

    def sync(self) -> None:
        """Apply all changes, also those held back, and wait until archives are unpacked."""
        self._catch_up()
        with self._store.lock:
            unpacking = set(self._unpacking)
        for future in wait(unpacking).done:
            future.result()

    def close(self) -> None:
        """Stop following the store, and wait for the end of the background thread."""
        self._closing.set()
        self._unpacker.shutdown(cancel_futures=True)

    def _changed(self, bucket: str, key: str, blob: Blob | None) -> None:
        if self._paused:
            self._behind[bucket, key] = None
            return
        try:
            self._apply(bucket, key, blob)
        except OSError:
            self._behind[bucket, key] = None  # for `sync`, which applies the store's content
            raise

    def _catch_up(self) -> None:
        with self._store.lock:
            for bucket, key in list(self._behind):
                self._apply(bucket, key, self._store.find(bucket, key))
                del self._behind[bucket, key]

    def _apply(self, bucket: str, key: str, blob: Blob | None) -> None:
        """Update the tree to the new content of a key; the caller holds the store's lock."""
        stem = _stem(key)
        if stem is not None:
            future = self._unpacker.submit(self._refresh_tree, bucket, stem)
            self._unpacking.add(future)
            future.add_done_callback(self._unpacking.discard)
        if blob:
            self._link(bucket, key, blob)
        else:
            self._unlink(bucket, key)

    def _link(self, bucket: str, key: str, blob: Blob) -> None:
        """Link an object into the tree, unless it is hidden."""
        if _stem(key) is not None and not self._archive_visible:
            return
        path = self._root / bucket / key
        staged = self._stage()
        source = self._store.blob_path(blob)
        try:
            self._make_parents(bucket, key)
            if _is_folder(path):
                return
            try:
                os.link(source, staged)
            except OSError:  # too many links to one file, or a file system without hard links
                shutil.copyfile(source, staged)
                staged.chmod(BLOB_MODE)
            staged.replace(path)
        except OSError:
            self._prune(bucket, path.parent)
            raise
        finally:
            # replacing a link by another link to the same file is defined to do nothing
            staged.unlink(missing_ok=True)

    def _unlink(self, bucket: str, key: str) -> None:
        path = self._root / bucket / key
        reached = _parents_are_folders(self._root / bucket, key.split("/"))
        if _is_folder(path) or not reached:
            return
        path.unlink(missing_ok=True)
        self._prune(bucket, path.parent)

    def _prune(self, bucket: str, directory: Path) -> None:
        """Remove empty directories upwards; link the objects that they have hidden."""
        while directory != self._root / bucket:
            try:
                directory.rmdir()
            except FileNotFoundError:
                pass  # it could not be created
            except OSError:
                return
            self._link_known(bucket, str(directory.relative_to(self._root / bucket)))
            directory = directory.parent

    def _link_known(self, bucket: str, key: str) -> None:
        """Link the object of a key, if it exists."""
        if blob := self._store.find(bucket, key):
            self._link(bucket, key, blob)

    def _make_parents(self, bucket: str, key: str) -> Path:
        """Create the parent folders of a key; return the key's path."""
        *folders, name = key.split("/")
        return _make_folders(self._root / bucket, folders, replace=True) / name

    def _stage(self) -> Path:
        return self._staging / str(next(self._numbers))

    def _refresh_tree(self, bucket: str, stem: str) -> None:
        """Replace the tree of an archive, or remove the tree of a deleted archive."""
        staged = self._stage()
        staged.mkdir()
        unpacked = any(self._unpack(bucket, stem + suffix, staged) for suffix in _SUFFIXES)
        with self._store.lock:
            if self._closing.is_set():
                return
            root = self._root / bucket
            target = self._make_parents(bucket, stem) if unpacked else root / stem
            reached = _parents_are_folders(root, stem.split("/"))
            if reached and _is_folder(target):
                target.replace(self._stage())
            if unpacked:
                target.unlink(missing_ok=True)
                staged.replace(target)
            # other objects below the same folder override the archive's tree
            for key in self._store.keys(bucket):
                if key.startswith(f"{stem}/"):
                    self._apply(bucket, key, self._store.find(bucket, key))
            self._link_known(bucket, stem)
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
            if _unpack_archive(key, archive, directory, lambda: not self._closing.is_set()):
                return True
        shutil.rmtree(directory)
        directory.mkdir()
        return False


class _RefusedError(Exception):
    """A member must not be unpacked; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One entry of an archive of any format.

    Attributes:
        name: path in the archive, unchanged.
        kind: ``file``, ``folder``, ``symlink``, ``hardlink``; None: anything else.
        mode: permission bits; 0 if the archive has none.
        modified: time of the last change, in seconds since the epoch; None: unknown.
        target: target of a link.
        open: opens the content of a file.
    """

    name: str
    kind: str | None
    mode: int
    modified: float | None
    target: str
    open: Callable[[], IO[bytes] | None]


def _stem(key: str) -> str | None:
    """Return the path an archive is unpacked to, its key without suffix; None for other keys."""
    for suffix in _SUFFIXES:
        if key.endswith(suffix) and not f"/{key}".endswith(f"/{suffix}"):
            return key.removesuffix(suffix)
    return None


def _unpack_archive(
    key: str, archive: IO[bytes], directory: Path, go_on: Callable[[], bool]
) -> bool:
    """Unpack an archive; skip and log members that could lead out of the directory.

    Args:
        key: the archive's key; its suffix determines the format.
        archive: the archive's bytes, seekable.
        directory: existing empty directory to fill.
        go_on: called before each member; False stops the unpacking.

    Returns:
        Whether the archive was unpacked. False: damaged, of another format, or stopped.
    """
    try:
        for member in (_zip_members if key.endswith(".zip") else _tar_members)(archive):
            if not go_on():
                return False
            try:
                _unpack_member(member, directory)
            except _RefusedError as error:
                _logger.warning("%s: the member %r is not unpacked: %s", key, member.name, error)
    # The parsers raise many types for a damaged file, which BucketFS silently does not unpack.
    except Exception:  # noqa: BLE001
        return False
    return True


def _is_folder(path: Path) -> bool:
    """Return whether the path is a directory and not a link."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _parents_are_folders(root: Path, names: Sequence[str]) -> bool:
    """Return whether a path below a directory is reached without following a link.

    Args:
        root: existing directory.
        names: names on the path, the outermost first; the last one may be anything.
    """
    return all(_is_folder(root.joinpath(*names[:depth])) for depth in range(1, len(names)))


def _make_folders(root: Path, names: Sequence[str], *, replace: bool) -> Path:
    """Create nested folders without following a link.

    Args:
        root: existing directory.
        names: names of the folders, the outermost first.
        replace: whether the folders replace files and links.

    Returns:
        The innermost folder.

    Raises:
        FileExistsError: a file or a link is in the way.
    """
    folder = root
    for name in names:
        folder /= name
        if not _is_folder(folder):
            if replace:
                folder.unlink(missing_ok=True)
            folder.mkdir()
    return folder


def _tar_members(archive: IO[bytes]) -> Iterator[_Member]:
    kinds = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink"}
    with tarfile.open(fileobj=archive, mode="r:*") as tarred:
        for info in tarred:
            yield _Member(
                name=info.name,
                kind="file" if info.isreg() else kinds.get(info.type),
                mode=info.mode,
                modified=info.mtime,
                target=info.linkname,
                open=partial(tarred.extractfile, info),
            )


def _zip_members(archive: IO[bytes]) -> Iterator[_Member]:
    # 0: not written by a Unix system
    kinds = {stat.S_IFREG: "file", 0: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else kinds.get(stat.S_IFMT(mode))
            target = b""
            if kind == "symlink":
                with zipped.open(info) as content:
                    target = content.read(_MAX_TARGET_BYTES)  # this length is too long for Linux
            yield _Member(
                name=info.filename,
                kind=kind,
                mode=mode,
                modified=None,  # in an unknown time zone
                target=os.fsdecode(target),
                open=partial(zipped.open, info),
            )


def _unpack_member(member: _Member, directory: Path) -> None:
    try:
        _make(member, directory)
    except OSError as error:
        if error.errno in _MISFITS:
            raise _RefusedError(error.strerror) from error
        raise


def _make(member: _Member, directory: Path) -> None:
    names = _names(member.name)
    if member.kind == "folder":
        _make_folders(directory, names, replace=False)
        return
    if not names:
        raise _RefusedError("it has no name")
    path = _make_folders(directory, names[:-1], replace=False) / names[-1]
    if member.kind == "file":
        _write_file(member, path)
    elif member.kind == "symlink":
        _check_target(member.target, depth=len(names) - 1)
        path.unlink(missing_ok=True)
        path.symlink_to(member.target)
    elif member.kind == "hardlink":
        _link_file(directory, _names(member.target), path)
    else:
        raise _RefusedError("it is neither a file nor a folder nor a link")


def _write_file(member: _Member, path: Path) -> None:
    content = member.open()
    if content is None:
        raise _RefusedError("it has no content")
    path.unlink(missing_ok=True)  # of members with the same name, the last one is kept
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
        mode = stat.S_IMODE(member.mode) or _DEFAULT_MODE
        os.fchmod(file.fileno(), mode & _GREATEST_MODE | _LEAST_MODE)
    if member.modified is not None:
        with suppress(OSError, OverflowError, ValueError):
            os.utime(path, (member.modified, member.modified))


def _link_file(directory: Path, names: Sequence[str], path: Path) -> None:
    source = directory.joinpath(*names)
    if not _parents_are_folders(directory, names) or not stat.S_ISREG(source.lstat().st_mode):
        raise _RefusedError("its target is not a file that was unpacked before")
    if source != path:
        path.unlink(missing_ok=True)
        os.link(source, path)


def _names(path: str) -> list[str]:
    names = [name for name in path.split("/") if name not in {"", "."}]
    if ".." in names or "\0" in path:
        raise _RefusedError(f"{path!r} may lead out of the archive's folder")
    return names


def _check_target(target: str, *, depth: int) -> None:
    """Raise if a symbolic link could lead out of the tree.

    Its target must be relative, with ``..`` only at its start and at most once for each folder
    that the link is in. These folders are not links, so the target starts in a folder of the tree
    and only descends from there; the same is true of every link on its path. Unlike a check of
    resolved paths, this does not depend on later changes of other links or on the length of paths
    (``os.path.realpath`` stops at PATH_MAX, which CVE-2025-4517 exploits).

    Args:
        target: target of the link.
        depth: number of folders that the link is in.
    """
    names = [name for name in target.split("/") if name not in {"", "."}]
    ascents = next((i for i, name in enumerate(names) if name != ".."), len(names))
    if (
        not target
        or target.startswith("/")
        or "\0" in target
        or ascents > depth
        or ".." in names[ascents:]
    ):
        raise _RefusedError(f"its target {target!r} may lead out of the archive's folder")
