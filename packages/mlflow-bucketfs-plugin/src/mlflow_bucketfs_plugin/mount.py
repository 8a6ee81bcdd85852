"""Read artifacts from a mounted bucket: a directory on every node, without HTTP or password."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import create_tmp_dir
from mlflow_bucketfs_core.errors import (
    BucketFSError,
    ObjectNotFoundError,
    UnsafeEntryError,
    printable,
)
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

from mlflow_bucketfs_plugin.constraints import check_numpy
from mlflow_bucketfs_plugin.host_policy import is_tracking_server_process
from mlflow_bucketfs_plugin.models import (
    MISSING_REMEDY,
    VARIABLES_IN_UDF,
    check_model,
    is_mlmodel,
)
from mlflow_bucketfs_plugin.transfers import files_below, has_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

    from mlflow_bucketfs_plugin.models import CheckedModel

_logger = logging.getLogger(__name__)
_COPY_BLOCK_BYTES = 1 << 16  # see BLOCK_BYTES in core


def find_mounted_bucket(
    location: BucketFSUri, settings: ConnectionSettings, notes: list[str]
) -> MountedBucket | None:
    """Return the mounted bucket to read a location from, or ``None`` to read it over HTTP.

    After this process has written into the bucket, it reads over HTTP, because MLflow reads its
    artifacts back and the mount is updated later. A tracking server reads over HTTP, too, unless
    the operator set ``EXA_BUCKETFS_MOUNT_ROOT``: a mount does not check read passwords.

    Args:
        location: a location in a bucket.
        settings: the mount root, and the hosts whose buckets are mounted there.
        notes: list to which the reason for HTTP is appended if buckets are mounted; the message
            of a later error quotes it.
    """
    if reads_over_http():
        return None
    in_server = is_tracking_server_process()
    if in_server:
        if not settings.mount_root_is_explicit:
            return None
        notes = []  # clients need not know the server's directories
    directory = Path(bucket_udf_path(location, settings.mount_root))
    if not directory.is_dir():
        if Path(settings.mount_root).is_dir():
            reason = f"{directory} does not exist. Check service and bucket in the URI."
            notes.append(_http_note(reason))
        return None
    if settings.mount_hosts is not None and not any_rule_matches(settings.mount_hosts, location):
        notes.append(_http_note(f"{location.authority} is not in EXA_BUCKETFS_MOUNT_HOSTS."))
        return None
    if has_written(location):
        notes.append(_http_note("this process has written into the bucket."))
        return None
    if settings.mount_hosts is None:
        _log_once(location, directory)
    return MountedBucket(
        directory, may_use_http=settings.mount_fallback_http, only_listed=in_server, notes=notes
    )


def _http_note(reason: str) -> str:
    remedy = "" if VARIABLES_IN_UDF in reason else f" {VARIABLES_IN_UDF}"
    return printable(f"(This was read over HTTP, not from the mount: {reason}{remedy})")


def _log_http(level: int, what: object, reason: object) -> None:
    _logger.log(level, "%s", printable(f"Reading {what} over HTTP: {reason}"))


# Forked children inherit it, as intended. No lock: a fork could leave it locked forever.
_logged: dict[tuple[str, Path], object] = {}


def _log_once(location: BucketFSUri, directory: Path) -> None:
    mine = object()
    if _logged.setdefault((location.authority, directory), mine) is mine:
        _logger.info(
            "Artifacts in %s are read from %s. If that is another cluster's bucket, set "
            "EXA_BUCKETFS_MOUNT_HOSTS to the hosts whose buckets are mounted here.",
            printable(str(location)),
            printable(str(directory)),
        )


@dataclass(frozen=True)
class MountedBucket:
    """A bucket that is mounted as a directory.

    On the mount, BucketFS unpacks archives and hides the archive files. So a mounted folder can
    contain files that are not objects of the bucket (unpacked ones), and objects (archives) can be
    missing there. Only a listing over HTTP shows the difference.

    Attributes:
        directory: the bucket's root directory.
        may_use_http: whether files that are missing here, or may differ, may be read over HTTP.
        only_listed: whether only files that BucketFS lists may be read from the mount, as in a
            tracking server, whose clients must not read unlisted files.
        notes: see :func:`find_mounted_bucket`.
    """

    directory: Path
    may_use_http: bool
    only_listed: bool
    notes: list[str]

    @cached_property
    def _root(self) -> str:
        return os.path.realpath(self.directory)

    def resolve(
        self, location: BucketFSUri, list_keys: Callable[[], Iterable[str]] | None = None
    ) -> MountedArtifact | None:
        """Return a mounted file or folder, or ``None`` if it must be read over HTTP.

        A missing archive is always read over HTTP. If ``may_use_http``, these are, too: other
        missing files and folders, incomplete models, models whose ``MLmodel`` names an archive, and
        folders whose files differ from a listing. A model that has the size it was saved with is
        not compared with a listing.

        Args:
            location: the file or folder.
            list_keys: returns the keys at and below the location, for that comparison. Without
                it, a folder that needs the comparison is read over HTTP.

        Raises:
            ObjectNotFoundError: it is not mounted (yet), or is a model without ``MLmodel``.
            UnsafeEntryError: a link leads out of the bucket, or it is a special file, such as a
                named pipe.
            OSError: it cannot be read, for example because of missing permission.
        """
        if self.only_listed:
            return None
        path = self.directory / location.path
        artifact = MountedArtifact(location, path, self._root)
        try:
            is_here = exists_on_mount(str(path), self._root)
            needs_listing = is_here and self.may_use_http and artifact.may_differ
        # FileNotFoundError: an unpacked archive may contain a dangling link
        except (BucketFSError, FileNotFoundError) as error:
            if not self.may_use_http:
                raise
            _log_http(logging.WARNING, location, error)
            self.notes.append(_http_note(str(error)))
            return None
        if needs_listing:
            if list_keys is not None and artifact.equals(list_keys()):
                return artifact
            self.notes.append(_http_note(f"{path} may differ from the bucket."))
            return None
        if is_here:
            return artifact
        is_archive = strip_archive_suffix(location.path) != location.path
        if is_archive or self.may_use_http:
            reason = (
                "it is an archive, which is not mounted."
                if is_archive
                else f"{path} does not exist."
            )
            _log_http(logging.INFO, location, reason)
            self.notes.append(_http_note(reason))
            return None
        missing = path / MLMODEL if path.exists() else path
        raise ObjectNotFoundError(
            f"There is no artifact at '{location}': {missing} does not exist. {MISSING_REMEDY}"
        )

    def download(
        self,
        location: BucketFSUri,
        relative: str,
        dst_path: str | None,
        list_keys: Callable[[], Iterable[str]],
    ) -> str | None:
        """Return a local path of a file or folder, or ``None`` if it must be read over HTTP.

        Args:
            location: the file or folder.
            relative: its path relative to the repository's root.
            dst_path: see :meth:`MountedArtifact.provide`.
            list_keys: see :meth:`resolve`.

        Raises:
            OSError: see :meth:`resolve` and :meth:`MountedArtifact.provide`.
            BucketFSError: the bucket cannot be listed.
        """
        artifact: MountedArtifact | None = None
        try:
            artifact = self.resolve(location, list_keys)
            return None if artifact is None else artifact.provide(relative, dst_path)
        except (OSError, MlflowException) as error:
            # For runs:/, MLflow passes a dst_path and drops the error. It tries the run's own
            # folder first, in which the artifact may be missing.
            nothing = artifact is None and isinstance(error, ObjectNotFoundError)
            if dst_path is not None and (in_logged_model(location.path) or not nothing):
                _logger.warning("%s", printable(f"Cannot read {location}: {error}"))
            raise

    def children(
        self, location: BucketFSUri, list_keys: Callable[[], Iterable[str]]
    ) -> list[tuple[str, bool, int | None]]:
        """List a folder, one level deep.

        Args:
            location: the folder.
            list_keys: returns the keys below it; called if the names must come from BucketFS,
                which is so with ``may_use_http`` or ``only_listed``.

        Returns:
            Entries sorted by name: the name, whether it is a folder, and the size in bytes, which
            is ``None`` for a folder and for a file that cannot be read here. A file or a missing
            folder has no entries.

        Raises:
            UnsafeEntryError: a link leads out of the bucket.
            OSError: the directory cannot be read.
            BucketFSError: the bucket cannot be listed.
        """
        if self.may_use_http or self.only_listed:
            listed = children(list_keys(), location.path)
            # BucketFS lists nothing below the folder of an unpacked archive
            if listed or self.only_listed:
                return [
                    (name, is_folder, None if is_folder else self._size_of(location, name))
                    for name, is_folder in listed.items()
                ]
        path = self.directory / location.path
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

    def _size_of(self, folder: BucketFSUri, name: str) -> int | None:
        # a listing may contain names that are not valid as a file name or key
        with suppress(OSError, ValueError), self._open(folder.joinpath(name).path) as file:
            return os.fstat(file.fileno()).st_size
        return None

    def copy_if_present(self, key: str, target: Path) -> bool:
        """Copy an object's file from the mount, if it can be read there.

        Returns:
            Whether the file was copied; if not, the target is unchanged.
        """
        try:
            _copy(self._open(key), target)
        except OSError as error:
            _log_http(logging.INFO, key, error)
            return False
        return True

    def _open(self, key: str) -> BinaryIO:
        return open_regular(resolve_inside(str(self.directory / key), self._root))


@dataclass(frozen=True)
class MountedArtifact:
    """A file or folder of a mounted bucket, whose directories are scanned only once.

    Attributes:
        location: its location in BucketFS.
        path: its path on the mount.
        root: its bucket's root directory, with links resolved.
    """

    location: BucketFSUri
    path: Path
    root: str

    @cached_property
    def files(self) -> dict[str, Path]:
        """Paths by relative name: all files below a folder, or one file with an empty name.

        Raises:
            UnsafeEntryError: a link leads out of the bucket, or a file is a special one, such as
                a named pipe.
            OSError: a directory cannot be read.
        """
        if self.path.is_dir():
            return files_below(self.path, bucket_root=self.root)
        return {"": Path(resolve_inside(str(self.path), self.root))}

    @cached_property
    def is_model(self) -> bool:
        """Whether it is a folder with an ``MLmodel``."""
        try:
            mode = (self.path / MLMODEL).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        # a named pipe or a link counts; reading it raises an error
        return not stat.S_ISDIR(mode)

    @cached_property
    def _checked(self) -> CheckedModel:
        return check_model(self.path, self.files)

    @property
    def may_differ(self) -> bool:
        """Whether its files may differ from the bucket's objects.

        Raises:
            BucketFSError: it is an incomplete model; see :func:`check_model`.
            OSError: it cannot be read.
        """
        return self.path.is_dir() and not (self.is_model and self._checked.has_saved_size)

    def equals(self, keys: Iterable[str]) -> bool:
        """Return whether a folder contains exactly the listed files.

        Args:
            keys: the keys at and below the location.
        """
        listed = {key[len(self.location.path) :].lstrip("/") for key in keys}
        # BucketFS lists nothing below the folder of an unpacked archive
        if not listed:
            return True
        try:
            if listed == self.files.keys():
                return True
            reason = "it has other files on the mount"
        except (UnsafeEntryError, FileNotFoundError) as error:
            reason = str(error)
        _log_http(logging.INFO, self.location, reason)
        return False

    def copy_file(self, target: Path) -> None:
        """Copy the file atomically.

        Raises:
            ObjectNotFoundError: it is a folder.
            OSError: it cannot be read, or the target cannot be written.
        """
        if self.path.is_dir():
            raise ObjectNotFoundError(f"'{self.location}' is a folder, not a file: {self.path}")
        _copy(open_regular(self.files[""]), target)

    def provide(self, relative: str, dst_path: str | None) -> str:
        """Return a local path of the file or folder, without copying it if possible.

        Without ``dst_path``, this is the mounted path. A model is the exception: it becomes a
        temporary directory of links with a real ``MLmodel``, because MLflow adds files to the
        directory that it gets, and refuses an ``MLmodel`` that is a link. With ``dst_path``, which
        MLflow always passes for ``runs:/``, files are copied, because links would break when the
        mount changes.

        Args:
            relative: the path relative to the repository's root.
            dst_path: existing directory to copy the files into.

        Raises:
            ObjectNotFoundError: see :func:`check_model`.
            IncompleteTransferError: see :func:`check_model`.
            MlflowException: see :func:`check_numpy`.
            UnsafeEntryError: a link leads out of the bucket, or a file is a special one, such as
                a named pipe.
            OSError: it cannot be read.
        """
        if dst_path is None and not self.is_model:
            return str(self.path)
        if MLMODEL in self.files:
            _logger.info("%s", printable(f"The model {self.location} is read from {self.path}"))
            check_numpy(self.files, self._checked.loaded)
        target = Path(create_tmp_dir() if dst_path is None else dst_path) / relative
        if self.path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        for name, path in self.files.items():
            # opened even for a link, so that an error names the mounted path
            with open_regular(path) as file:
                if dst_path is None and not is_mlmodel(name):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    (target / name).symlink_to(path)
                else:
                    _copy(file, target / name)
        return str(target)


def _copy(source: BinaryIO, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # replaces a link of this name, instead of writing through it
    with source, atomic_file(target) as copy:
        copy.writelines(_blocks(source))


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    try:
        while block := source.read(_COPY_BLOCK_BYTES):
            yield block
    except OSError as error:
        # the error of a read names no file; without a name, it would look like a failed write
        raise type(error)(error.errno, error.strerror, source.name) from None
