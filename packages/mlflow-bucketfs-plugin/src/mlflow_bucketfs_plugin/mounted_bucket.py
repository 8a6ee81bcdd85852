"""Reading from the bucket as UDFs see it: a directory on every node, without HTTP or password."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.utils.file_utils import create_tmp_dir
from mlflow_bucketfs_core.errors import BucketFSError, ObjectNotFoundError, UnsafeEntryError
from mlflow_bucketfs_core.files import atomic_file
from mlflow_bucketfs_core.hosts import any_rule_matches
from mlflow_bucketfs_core.listing import children
from mlflow_bucketfs_core.mounted import (
    MLMODEL,
    bucket_udf_path,
    exists_on_mount,
    in_logged_model,
    open_regular,
    reads_over_http,
    resolve_entry,
    resolve_inside,
)
from mlflow_bucketfs_core.uri import strip_archive_suffix

from mlflow_bucketfs_plugin.constraints import warn_of_numpy_2
from mlflow_bucketfs_plugin.host_policy import is_tracking_server_process
from mlflow_bucketfs_plugin.models import MISSING_REMEDY, check_model, is_mlmodel
from mlflow_bucketfs_plugin.transfers import files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

_logger = logging.getLogger(__name__)
_COPY_BLOCK_BYTES = 1 << 16  # see BLOCK_BYTES in core


def mounted_bucket(place: BucketFSUri, settings: ConnectionSettings) -> MountedBucket | None:
    """Return the mounted bucket that reads of a place are served from, if there is one.

    There is none where this process has written into the bucket: the mount follows later, and
    MLflow reads back what it wrote. There is none in a tracking server either, unless its
    operator set ``EXA_BUCKETFS_MOUNT_ROOT``: a mount knows no read passwords.

    Args:
        place: names a bucket.
        settings: where BucketFS is mounted, and for which hosts.
    """
    if reads_over_http():
        return None
    if settings.mount_hosts is not None and not any_rule_matches(settings.mount_hosts, place):
        return None
    in_server = is_tracking_server_process()
    if in_server and not settings.mount_root_is_explicit:
        return None
    if _process.has_written(place):
        return None
    directory = Path(bucket_udf_path(place, settings.mount_root))
    if not directory.is_dir():
        return None
    if settings.mount_hosts is None:
        _process.tell_once(place, directory)
    return MountedBucket(
        directory, may_use_http=settings.mount_fallback_http, only_listed=in_server
    )


def warn_of_unreadable(place: BucketFSUri, error: OSError) -> None:
    """Log why a place cannot be read, where MLflow may drop the error."""
    _logger.warning("Cannot read %s: %s", place, error)


def note_write(place: BucketFSUri) -> None:
    """Note that this process writes into a bucket: from now on it reads it over HTTP."""
    _process.add_written(place)


class _ProcessMemory:
    """What a process remembers about buckets. A forked child rightly inherits it.

    Without a lock, which a fork could leave locked for ever: each method is one atomic operation.
    """

    def __init__(self) -> None:
        self._written: set[tuple[str, str, str]] = set()
        self._told: dict[tuple[str, str, str], object] = {}

    def has_written(self, place: BucketFSUri) -> bool:
        return self._key(place) in self._written

    def add_written(self, place: BucketFSUri) -> None:
        self._written.add(self._key(place))

    def tell_once(self, place: BucketFSUri, directory: Path) -> None:
        mine = object()
        if self._told.setdefault(self._key(place), mine) is mine:
            _logger.info(
                "Artifacts in %s are read from %s. If that is another cluster's bucket, set "
                "EXA_BUCKETFS_MOUNT_HOSTS to the hosts whose buckets are mounted here.",
                place,
                directory,
            )

    @staticmethod
    def _key(place: BucketFSUri) -> tuple[str, str, str]:
        return place.authority, place.service, place.bucket


_process = _ProcessMemory()


@dataclass(frozen=True)
class MountedBucket:
    """One bucket as a directory.

    BucketFS unpacks archives there and hides the archives themselves, so a folder may have files
    that are no objects, and lack objects. Only a listing tells, which is a request.

    Attributes:
        directory: the bucket's root.
        may_use_http: whether what is missing here, or may differ, may be asked for over HTTP.
        only_listed: whether nothing but what BucketFS lists may be read here.
    """

    directory: Path
    may_use_http: bool = False
    only_listed: bool = False

    @cached_property
    def _root(self) -> str:
        return os.path.realpath(self.directory)

    def serves(
        self, place: BucketFSUri, list_keys: Callable[[], Iterable[str]] | None = None
    ) -> bool:
        """Tell whether a file or folder is read from here, if only to fail.

        What is missing comes over HTTP if that is allowed, and if it is an archive in any case.
        Where HTTP is allowed, so does a model that lacks a part, or names an archive. Any other
        folder is then compared with a listing, unless it is a model with exactly as many bytes as
        when it was saved.

        Args:
            place: the file or folder.
            list_keys: returns the keys at and below the place; called only where they decide.
                Without it, a folder for which they would is not served.

        Raises:
            UnsafeEntryError: see :meth:`existing_path`.
            OSError: it cannot be told, for example for want of permission.
        """
        if self.only_listed:
            return False
        try:
            is_here = self._has(place)
            needs_listing = is_here and self.may_use_http and self._may_differ(place)
        # a link of an unpacked archive may lead nowhere
        except (BucketFSError, FileNotFoundError) as error:
            if not self.may_use_http:
                raise
            _logger.warning("Reading %s over HTTP: %s", place, error)
            return False
        if needs_listing:
            return list_keys is not None and self._is_same(place, list_keys())
        if not is_here and strip_archive_suffix(place.path) != place.path:
            _logger.info("%s is an archive, which is not mounted: reading over HTTP", place)
            return False
        return is_here or not self.may_use_http

    def _may_differ(self, place: BucketFSUri) -> bool:
        path = self.directory / place.path
        if not path.is_dir():
            return False
        return not _is_model(path) or not check_model(path, self._files_below(path))

    def _is_same(self, place: BucketFSUri, keys: Iterable[str]) -> bool:
        listed = {key[len(place.path) :].lstrip("/") for key in keys}
        # nothing is listed of an archive's folder that is wanted by its own name
        if not listed:
            return True
        try:
            if listed == self._files_below(self.directory / place.path).keys():
                return True
            reason = "it has other files on the mount"
        except (UnsafeEntryError, FileNotFoundError) as error:
            reason = str(error)
        _logger.info("Reading %s over HTTP: %s", place, reason)
        return False

    def children(
        self, place: BucketFSUri, list_keys: Callable[[], Iterable[str]]
    ) -> list[tuple[str, bool, int | None]]:
        """List a folder, one level deep.

        Args:
            place: the folder.
            list_keys: returns the keys below it; called where BucketFS is asked what there is.

        Returns:
            Names in sorted order, each with whether it is a folder and the size of the file in
            bytes, ``None`` for a folder and for what cannot be read here; nothing at all for a
            file and for what does not exist.

        Raises:
            UnsafeEntryError: a link leads out of the bucket.
            OSError: the directory cannot be read.
            BucketFSError: the bucket cannot be listed.
        """
        if self.may_use_http or self.only_listed:
            listed = children(list_keys(), place.path)
            # nothing is listed of an archive's folder
            if listed or self.only_listed:
                return [
                    (name, is_folder, None if is_folder else self._size_of(place.joinpath(name)))
                    for name, is_folder in listed.items()
                ]
        path = self.directory / place.path
        resolve_inside(str(path), self._root)
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted(self._described(entry) for entry in entries)

    def _described(self, entry: os.DirEntry[str]) -> tuple[str, bool, int | None]:
        try:
            resolve_entry(entry, self._root)
            size = None if entry.is_dir() else entry.stat().st_size
        except (UnsafeEntryError, FileNotFoundError):
            return entry.name, False, None
        return entry.name, entry.is_dir(), size

    def _size_of(self, place: BucketFSUri) -> int | None:
        with suppress(OSError), self._open(place.path) as file:
            return os.fstat(file.fileno()).st_size
        return None

    def copy_if_present(self, key: str, target: Path) -> bool:
        """Copy an object's file, if it can be read here.

        Returns:
            Whether there is a complete copy; if not, the target is what it was.
        """
        try:
            _copy(self._open(key), target)
        except OSError as error:
            _logger.info("Reading %s over HTTP: %s", key, error)
            return False
        return True

    def _open(self, key: str) -> BinaryIO:
        return open_regular(resolve_inside(str(self.directory / key), self._root))

    def _files_below(self, folder: Path) -> dict[str, Path]:
        return files_below(folder, bucket_root=self._root)

    def existing_path(self, place: BucketFSUri) -> Path:
        """Return the mounted path of a file or folder.

        Raises:
            ObjectNotFoundError: it is not mounted (yet), or is a model without ``MLmodel``.
            UnsafeEntryError: a link leads out of the bucket, or it is a named pipe or the like.
        """
        path = self.directory / place.path
        if self._has(place):
            return path
        missing = path / MLMODEL if path.exists() else path
        raise ObjectNotFoundError(
            f"There is no artifact at '{place}': {missing} does not exist. {MISSING_REMEDY}"
        )

    def _has(self, place: BucketFSUri) -> bool:
        return exists_on_mount(str(self.directory / place.path), self._root)

    def copy_file(self, place: BucketFSUri, target: Path) -> None:
        """Copy one file; it appears complete or not at all.

        Raises:
            ObjectNotFoundError: it is not mounted (yet), or is a folder.
            OSError: it cannot be read, or the target cannot be written.
        """
        source = self.existing_path(place)
        if source.is_dir():
            raise ObjectNotFoundError(f"'{place}' is a folder, not a file: {source}")
        _copy(self._open(place.path), target)

    def provide(self, place: BucketFSUri, relative: str, dst_path: str | None) -> str:
        """Make a file or folder available, without copying it where possible.

        Without ``dst_path`` it is the mounted path itself. A model is the exception: it becomes
        a temporary directory of links with a real ``MLmodel``, because MLflow adds files to the
        directory it gets and refuses an ``MLmodel`` that is a link. A ``dst_path``, which MLflow
        always passes for ``runs:/``, gets copies: links would break once the user keeps it.

        Args:
            place: what is wanted.
            relative: the path that MLflow knows it by.
            dst_path: existing directory to put it into.

        Returns:
            The path of the file or folder.

        Raises:
            ObjectNotFoundError: see :meth:`existing_path` and :func:`check_model`.
            IncompleteTransferError: see :func:`check_model`.
            UnsafeEntryError: a link leads out of the bucket, or it is a named pipe or the like.
            OSError: it cannot be read.
        """
        try:
            return self._provide(place, relative, dst_path)
        except OSError as error:
            # For runs:/ MLflow asks with a dst_path and drops the error. It asks the run's own
            # folder first, where nothing is what it expects.
            nothing = isinstance(error, ObjectNotFoundError) and not self._has(place)
            if dst_path is not None and (in_logged_model(place.path) or not nothing):
                warn_of_unreadable(place, error)
            raise

    def _provide(self, place: BucketFSUri, relative: str, dst_path: str | None) -> str:
        source = self.existing_path(place)
        if dst_path is None and not _is_model(source):
            return str(source)
        if source.is_dir():
            files = self._files_below(source)
        else:
            files = {"": Path(resolve_inside(str(source), self._root))}
        if MLMODEL in files:
            _logger.info("The model %s is read from %s", place, source)
            check_model(source, files)
            warn_of_numpy_2(source)
        target = Path(create_tmp_dir() if dst_path is None else dst_path) / relative
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            # opened in any case: an error names the mounted path, not that of the link
            with open_regular(path) as file:
                if dst_path is None and not is_mlmodel(name):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    (target / name).symlink_to(path)
                else:
                    _copy(file, target / name)
        return str(target)


def _is_model(folder: Path) -> bool:
    try:
        mode = (folder / MLMODEL).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    # a named pipe or a link counts: what is wrong with it is found when it is read
    return not stat.S_ISDIR(mode)


def _copy(source: BinaryIO, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # replaces a link of this name, instead of writing through it
    with source, atomic_file(target) as copy:
        shutil.copyfileobj(source, copy, _COPY_BLOCK_BYTES)
