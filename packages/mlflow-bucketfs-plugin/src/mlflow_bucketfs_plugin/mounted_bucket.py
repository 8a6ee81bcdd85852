"""Reading from the bucket as UDFs see it: a directory on every node, without HTTP or password."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.utils.file_utils import create_tmp_dir
from mlflow_bucketfs_core.errors import BucketFSError, ObjectNotFoundError
from mlflow_bucketfs_core.hosts import any_rule_matches
from mlflow_bucketfs_core.keys import strip_archive_suffix
from mlflow_bucketfs_core.mounted import (
    MLMODEL,
    bucket_udf_path,
    in_logged_model,
    is_mounted,
    reads_over_http,
)
from mlflow_bucketfs_core.transport.atomic_file import atomic_file

from mlflow_bucketfs_plugin.artifact_tree import files_below, is_mlmodel
from mlflow_bucketfs_plugin.constraints import warn_of_numpy_2
from mlflow_bucketfs_plugin.host_policy import is_tracking_server_process
from mlflow_bucketfs_plugin.model_parts import WHAT_TO_DO, check_model

if TYPE_CHECKING:
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
    if is_tracking_server_process() and not settings.mount_root_is_explicit:
        return None
    if _process.has_written(place):
        return None
    directory = Path(bucket_udf_path(place, settings.mount_root))
    if not directory.is_dir():
        return None
    if settings.mount_hosts is None:
        _process.tell_once(place, directory)
    return MountedBucket(directory, may_use_http=settings.mount_fallback_http)


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

    Attributes:
        directory: the bucket's root.
        may_use_http: whether what is missing here may be asked for over HTTP.
    """

    directory: Path
    may_use_http: bool = False

    def serves(self, place: BucketFSUri) -> bool:
        """Tell whether reads of a place come from here, if only to fail.

        What is missing comes over HTTP if that is allowed, and if it is an archive in any case:
        BucketFS shows UDFs its content, not the archive. A model that lacks a part counts as
        missing.

        Raises:
            OSError: it cannot be told, for example for want of permission.
        """
        if self._has(place):
            return not self.may_use_http or self._is_whole(place)
        if strip_archive_suffix(place.path) != place.path:
            _logger.info("%s is an archive, which is not mounted: reading over HTTP", place)
            return False
        return not self.may_use_http

    def children(self, place: BucketFSUri) -> list[tuple[str, bool, int | None]]:
        """List a folder, one level deep.

        Returns:
            Names in sorted order, each with whether it is a folder and the size of the file in
            bytes, ``None`` for a folder and for a link that leads nowhere (unpacked archives
            have such); nothing at all for a file and for what does not exist.

        Raises:
            OSError: the directory cannot be read.
        """
        path = self.directory / place.path
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted((e.name, e.is_dir(), _size_of_file(e)) for e in entries)

    def existing_path(self, place: BucketFSUri) -> Path:
        """Return the mounted path of a file or folder.

        Raises:
            ObjectNotFoundError: it is not mounted (yet), or is a model without ``MLmodel``.
        """
        path = self.directory / place.path
        if self._has(place):
            return path
        missing = path / MLMODEL if path.exists() else path
        raise ObjectNotFoundError(
            f"There is no artifact at '{place}': {missing} does not exist. {WHAT_TO_DO}"
        )

    def _has(self, place: BucketFSUri) -> bool:
        return is_mounted(str(self.directory / place.path))

    def _is_whole(self, place: BucketFSUri) -> bool:
        path = self.directory / place.path
        if not (path / MLMODEL).is_file():
            return True
        try:
            check_model(path, files_below(path))
        # a link of an unpacked archive may lead nowhere
        except (BucketFSError, FileNotFoundError) as error:
            _logger.warning("Reading %s over HTTP: %s", place, error)
            return False
        return True

    def copy_file(self, place: BucketFSUri, target: Path) -> None:
        """Copy one file; it appears complete or not at all.

        Raises:
            ObjectNotFoundError: it is not mounted (yet), or is a folder.
            OSError: it cannot be read, or the target cannot be written.
        """
        source = self.existing_path(place)
        if source.is_dir():
            raise ObjectNotFoundError(f"'{place}' is a folder, not a file: {source}")
        _put(source, target, link=False)

    def provide(self, place: BucketFSUri, relative: str, dst_path: str | None) -> str:
        """Make a file or folder available, without copying it where possible.

        Without ``dst_path`` it is the mounted path itself. A model is the exception: it becomes
        a temporary directory of links with a real ``MLmodel``, because MLflow adds files to the
        directory it gets and refuses an ``MLmodel`` that is a link. A ``dst_path`` in the
        temporary directory, as MLflow passes for ``runs:/``, gets links as well; any other one
        gets copies.

        Args:
            place: what is wanted.
            relative: the path that MLflow knows it by.
            dst_path: existing directory to put it into.

        Returns:
            The path of the file or folder.

        Raises:
            ObjectNotFoundError: see :meth:`existing_path` and :func:`check_model`.
            IncompleteTransferError: see :func:`check_model`.
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
        if dst_path is None and not (source / MLMODEL).is_file():
            return str(source)
        files = files_below(source) if source.is_dir() else {"": source}
        if MLMODEL in files:
            _logger.info("The model %s is read from %s", place, source)
            check_model(source, files)
            warn_of_numpy_2(source)
        directory = Path(create_tmp_dir() if dst_path is None else dst_path)
        link = directory.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())
        target = directory / relative
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            _put(file, target / name, link=link)
        return str(target)


def _size_of_file(entry: os.DirEntry[str]) -> int | None:
    try:
        return None if entry.is_dir() else entry.stat().st_size
    except FileNotFoundError:
        return None


def _put(source: Path, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # opened in any case: what cannot be read shall be named by its mounted path, not by the link's
    with source.open("rb") as file:
        if link and not is_mlmodel(target.name):
            target.unlink(missing_ok=True)
            target.symlink_to(source)
        else:
            # replaces a link left by an earlier call, instead of writing through it
            with atomic_file(target) as copy:
                shutil.copyfileobj(file, copy, _COPY_BLOCK_BYTES)
