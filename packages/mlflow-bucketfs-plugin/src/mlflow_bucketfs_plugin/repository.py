"""The artifact repository for MLflow."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.utils.file_utils import create_tmp_dir
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.errors import InvalidKeyError, printable
from mlflow_bucketfs_core.listing import children
from mlflow_bucketfs_core.mounted import MLMODEL
from mlflow_bucketfs_core.uri import join_key, normalize_key, split_key

from mlflow_bucketfs_plugin.host_policy import apply_host_policy
from mlflow_bucketfs_plugin.mlflow_errors import enumerated, mlflow_errors
from mlflow_bucketfs_plugin.models import warn_of_void
from mlflow_bucketfs_plugin.mount import find_mounted_bucket
from mlflow_bucketfs_plugin.streaming import StreamUploadMixin, upload_from_client
from mlflow_bucketfs_plugin.transfers import (
    delete_folder,
    download_files,
    files_below,
    find_files,
    noting_write,
    upload_folder,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from typing import BinaryIO

    PathArgument = str | os.PathLike[str]

_logger = logging.getLogger(__name__)
_STREAM_BLOCK_BYTES = 1 << 20


class BucketFSArtifactRepository(ArtifactRepository, StreamUploadMixin):
    """An MLflow artifact repository below one URI in BucketFS.

    If the bucket is mounted, as in a UDF, it is read from the mount, without HTTP or password,
    until this process writes into it.

    The constructor sends no request and needs no password. Instances keep no state between calls,
    so that threads can share them; connections are pooled per process. Every call reads the
    environment when it starts, because MLflow reuses repositories: a password that is set after
    the first failure takes effect.

    Args:
        artifact_uri: ``exa+bfs://`` or ``exa+bfss://``. If it ends before the bucket, paths begin
            with the bucket's name (MLflow may pass the last segment of a URI as the path).
        tracking_uri: passed on to MLflow.
        registry_uri: passed on to MLflow.

    Raises:
        MlflowException: malformed URI, host that is not allowed, invalid environment variable.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        with mlflow_errors():
            self._root = BucketFSUri.parse(artifact_uri)
            self._settings()  # raises if a variable is invalid
        super().__init__(artifact_uri, tracking_uri, registry_uri)

    @property
    def max_workers(self) -> int:
        """Number of files transferred at the same time, ``EXA_BUCKETFS_MAX_WORKERS``."""
        with mlflow_errors():
            return self._settings().max_workers

    def log_artifact(self, local_file: PathArgument, artifact_path: str | None = None) -> None:
        """Upload one file; replace an artifact of the same name.

        Args:
            local_file: the file.
            artifact_path: target folder.
        """
        verify_artifact_path(artifact_path)
        with mlflow_errors():
            location = self._location(join_key(artifact_path or "", Path(local_file).name))
            bucket = self._bucket_of(location)
            with noting_write(bucket):
                bucket.upload_file(location.path, local_file)

    def log_artifacts(self, local_dir: PathArgument, artifact_path: str | None = None) -> None:
        """Upload the content of a directory, many files at a time.

        A file that fails does not stop the others; one exception reports all failures. ``MLmodel``
        is uploaded after all other files of its directory, and only if they succeeded, so that
        its presence means a complete model. An earlier ``MLmodel`` is first replaced by one
        without flavors, which takes one more request.

        Args:
            local_dir: the directory.
            artifact_path: target folder.
        """
        verify_artifact_path(artifact_path)
        if not Path(local_dir).is_dir():
            raise MlflowException(
                f"There is no directory {os.fspath(local_dir)!r} to log.",
                error_code=INVALID_PARAMETER_VALUE,
            )
        with mlflow_errors():
            folder = self._location(artifact_path)
            upload_folder(self._bucket_of(folder), folder, files_below(Path(local_dir)))

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Upload the content of a stream; if the stream raises, nothing is stored.

        Args:
            stream: read to its end; an upload of more than 8 MiB is not retried.
            artifact_file_name: name of the file; folders in it are ignored.
            artifact_path: target folder.
        """
        bucket, key = self._stream_target(artifact_file_name, artifact_path)
        with mlflow_errors(), noting_write(bucket):
            bucket.upload_stream(key, iter(lambda: stream.read(_STREAM_BLOCK_BYTES), b""))

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        """Upload an asynchronous stream; see :meth:`log_artifact_from_stream`.

        The event loop is not blocked. If the client sends nothing for
        ``EXA_BUCKETFS_CLIENT_TIMEOUT`` seconds, the upload fails.
        """
        bucket, key = self._stream_target(artifact_file_name, artifact_path)
        with mlflow_errors(), noting_write(bucket):
            bucket.require_password()  # before the client's data is collected
            await upload_from_client(bucket, key, chunks)

    def _stream_target(self, file_name: str, artifact_path: str | None) -> tuple[Bucket, str]:
        verify_artifact_path(artifact_path)
        name = file_name.rpartition("/")[2]
        if not name:
            raise MlflowException(
                f"{file_name!r} is not the name of a file.", error_code=INVALID_PARAMETER_VALUE
            )
        with mlflow_errors():
            location = self._location(join_key(artifact_path or "", name))
            return self._bucket_of(location), location.path

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder, one level deep, with one request, or without one on a mounted bucket.

        Over HTTP, sizes are ``None``, because a listing of BucketFS has none; the mount has them.
        With ``EXA_BUCKETFS_MOUNT_FALLBACK=http``, and in a tracking server, names come over HTTP.

        Args:
            path: the folder; ``None`` for the root.

        Returns:
            Files and folders sorted by path; empty for a file and for a missing folder. Names
            that are invalid for artifacts are left out with a warning.
        """
        with mlflow_errors() as notes:
            settings = self._settings()
            folder = self._location(path)
            prefix = normalize_key(path or "")

            def list_keys() -> list[str]:
                return Bucket(folder, settings).keys(folder.path)

            found: list[tuple[str, bool, int | None]]
            if mounted := find_mounted_bucket(folder, settings, notes):
                found = mounted.children(folder, list_keys)
            else:
                listed = children(list_keys(), folder.path)
                found = [(name, is_folder, None) for name, is_folder in listed.items()]
        unusable = {name for name, *_ in found if not _is_usable(name)}
        if unusable:
            _logger.warning(
                "Left out of the listing of %s, because they cannot be names of artifacts: %s",
                printable(str(folder)),
                enumerated(sorted(unusable)),
            )
        return [
            FileInfo(join_key(prefix, name), is_folder, size)
            for name, is_folder, size in found
            if name not in unusable
        ]

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file, or all files of a folder, with one listing and one GET per file.

        From a mounted bucket, files are copied only if ``dst_path`` is given; see
        :meth:`MountedArtifact.provide`.

        Args:
            artifact_path: file or folder; empty for the root.
            dst_path: existing directory to download into; a new temporary one if ``None``.

        Returns:
            Path of the downloaded file or directory.
        """
        directory = _existing_directory(dst_path) if dst_path else None
        with mlflow_errors() as notes:
            settings = self._settings()
            location = self._location(artifact_path)
            relative = normalize_key(artifact_path or "")
            bucket = Bucket(location, settings)
            mounted = find_mounted_bucket(location, settings, notes)
            # at most one listing, and none if the mount needs no comparison
            listing = cache(lambda: bucket.keys(location.path))
            if mounted is not None:
                path = mounted.download(location, relative, directory, listing)
                if path is not None:
                    return path
            keys = find_files(listing(), location, relative)
            with ExitStack() as on_failure:
                if directory is None:
                    directory = create_tmp_dir()
                    on_failure.callback(shutil.rmtree, directory, ignore_errors=True)
                listed_files = mounted if mounted is not None and mounted.only_listed else None
                download_files(bucket, location, keys, directory, listed_files)
                on_failure.pop_all()
        if (mlmodel := join_key(relative, MLMODEL)) in keys:
            warn_of_void(Path(directory, mlmodel))
        return str(Path(directory, relative))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or all files of a folder; a missing one is not an error.

        ``MLmodel`` is deleted first, so that no incomplete model looks complete.

        Args:
            artifact_path: file or folder, with or without trailing ``/``; ``None`` for the root.

        Raises:
            MlflowException: some files cannot be deleted, or the path is the bucket's root.
        """
        with mlflow_errors():
            location = self._location(artifact_path)
            if not location.path:
                raise MlflowException(
                    f"Refused to delete everything in the bucket {printable(str(location))}. "
                    "Name a folder within the bucket.",
                    error_code=INVALID_PARAMETER_VALUE,
                )
            bucket = self._bucket_of(location)
            bucket.require_password()  # before the listing, and even if nothing exists
            delete_folder(bucket, location)

    def _download_file(self, remote_file_path: str, local_path: PathArgument) -> None:
        with mlflow_errors() as notes:
            settings = self._settings()
            location = self._location(remote_file_path)
            mounted = find_mounted_bucket(location, settings, notes)
            artifact = mounted.resolve(location) if mounted else None
            if artifact is not None:
                artifact.copy_file(Path(local_path))
            else:
                Bucket(location, settings).download_file(location.path, local_path)

    def get_local_path(self, artifact_path: str) -> str | None:
        """Return the mounted path of a file or folder, or ``None`` if it must be read over HTTP.

        It sends no request, because a tracking server calls it in its event loop.

        Raises:
            MlflowException: the file or folder is missing in the mounted bucket.
        """
        with mlflow_errors() as notes:
            location = self._location(artifact_path)
            mounted = find_mounted_bucket(location, self._settings(), notes)
            artifact = mounted.resolve(location) if mounted else None
            return None if artifact is None else str(artifact.path)

    def upload_archived_trace_data_bytes(self, data: bytes) -> None:
        """Upload the archived spans of a trace, without a temporary file."""
        from mlflow.tracing.otel.otel_archival import (  # noqa: PLC0415 -- MLflow 3.13 and later
            TRACE_ARCHIVAL_FILENAME,
        )

        with mlflow_errors():
            location = self._location(TRACE_ARCHIVAL_FILENAME)
            bucket = self._bucket_of(location)
            with noting_write(bucket):
                bucket.upload_bytes(location.path, data)

    def _settings(self) -> ConnectionSettings:
        return apply_host_policy(self._root, ConnectionSettings.from_env())

    def _location(self, path: str | None) -> BucketFSUri:
        return self._root.joinpath(path or "").require_bucket()

    def _bucket_of(self, location: BucketFSUri) -> Bucket:
        return Bucket(location, self._settings())


def _is_usable(name: str) -> bool:
    try:
        split_key(name)
    except InvalidKeyError:
        return False
    return True


def _existing_directory(path: str) -> str:
    if not Path(path).exists():
        raise MlflowException(
            f"The destination path for downloaded artifacts does not exist: {path}",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    if not Path(path).is_dir():
        raise MlflowException(
            f"The destination path for downloaded artifacts must be a directory: {path}",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return os.path.abspath(path)  # noqa: PTH100 -- Path.absolute keeps ".."
