"""The artifact store that MLflow talks to."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.utils.file_utils import ArtifactProgressBar, create_tmp_dir
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.keys import join_key, normalize_key, split_key
from mlflow_bucketfs_core.listing import children

from mlflow_bucketfs_plugin.artifact_tree import (
    belongs_to_model,
    files_below,
    is_mlmodel,
    mlmodels_inside_out,
    split_shadowed,
)
from mlflow_bucketfs_plugin.host_policy import apply_host_policy
from mlflow_bucketfs_plugin.mlflow_errors import aggregated, mlflow_errors
from mlflow_bucketfs_plugin.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    PathArgument = str | os.PathLike[str]

_logger = logging.getLogger(__name__)


class BucketFSArtifactRepository(ArtifactRepository):
    """Artifacts below one URI in BucketFS.

    The constructor sends nothing and needs no password. Instances keep no state between calls, so
    that threads may share them; connections are pooled per process.

    Args:
        artifact_uri: ``exa+bfs://`` or ``exa+bfss://``; may end before the bucket, whose name
            then comes with the paths (MLflow cuts the last segment off a URI and passes it so).
        tracking_uri: passed on to MLflow.
        registry_uri: passed on to MLflow.

    Raises:
        MlflowException: a malformed URI, a host that is not allowed, a bad environment variable.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        with mlflow_errors():
            self._root = BucketFSUri.parse(artifact_uri)
            self._settings = apply_host_policy(self._root, ConnectionSettings.from_env())
        super().__init__(artifact_uri, tracking_uri, registry_uri)

    @property
    def max_workers(self) -> int:
        """Number of files transferred at the same time, ``EXA_BUCKETFS_MAX_WORKERS``."""
        return self._settings.max_workers

    def log_artifact(self, local_file: PathArgument, artifact_path: str | None = None) -> None:
        """Upload one file; an artifact of the same name is replaced.

        Args:
            local_file: the file.
            artifact_path: folder to put it into.
        """
        verify_artifact_path(artifact_path)
        with mlflow_errors():
            place = self._place(join_key(artifact_path or "", Path(local_file).name))
            self._bucket(place).upload_file(place.path, local_file)

    def log_artifacts(self, local_dir: PathArgument, artifact_path: str | None = None) -> None:
        """Upload a directory's content, many files at a time.

        A file that fails does not stop the others; all failures are raised together. ``MLmodel``
        comes after all other files of its directory and stays away if one of them failed: where
        it is, the model is complete.

        Args:
            local_dir: the directory.
            artifact_path: folder to put its content into.
        """
        verify_artifact_path(artifact_path)
        if not Path(local_dir).is_dir():
            raise MlflowException(
                f"There is no directory {os.fspath(local_dir)!r} to log.",
                error_code=INVALID_PARAMETER_VALUE,
            )
        files = files_below(Path(local_dir))
        with mlflow_errors():
            folder = self._place(artifact_path)
            bucket = self._bucket(folder)
            keys = {name: join_key(folder.path, name) for name in files}
            bucket.prepare_uploads(keys.values())

        def upload(name: str) -> None:
            bucket.upload_file(keys[name], files[name])

        with ArtifactProgressBar.files("Uploading artifacts", len(files)) as progress:
            others = [name for name in files if not is_mlmodel(name)]
            failures = self._run_all(upload, others, progress)
            for models in mlmodels_inside_out(files):
                complete = [m for m in models if not _any_of_model(failures, m)]
                failures |= self._run_all(upload, complete, progress)
        _raise_for(failures, "uploading", folder)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder, one level deep, with one request.

        Sizes are ``None``: BucketFS's listing has none.

        Args:
            path: the folder; ``None`` for the root.

        Returns:
            Files and folders sorted by path; nothing for a file and for what does not exist.
        """
        with mlflow_errors():
            folder = self._place(path)
            keys = self._bucket(folder).keys(folder.path)
            prefix = normalize_key(path or "")
        return [
            FileInfo(join_key(prefix, name), is_folder, None)
            for name, is_folder in children(keys, folder.path).items()
        ]

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file, or a folder with all below it: one listing and one GET per file.

        Args:
            artifact_path: file or folder; empty for the root.
            dst_path: existing directory to download into; a new temporary one if ``None``.

        Returns:
            Path of the downloaded file or directory.
        """
        if dst_path:
            _require_directory(dst_path)
        with mlflow_errors():
            place = self._place(artifact_path)
            bucket = self._bucket(place)
            relative = normalize_key(artifact_path or "")
            keys = self._keys_by_name(bucket, place, relative)
            segments = {name: split_key(name) for name in keys}
        destination = os.path.abspath(dst_path) if dst_path else create_tmp_dir()  # noqa: PTH100
        targets = {name: Path(destination, *parts) for name, parts in segments.items()}
        for directory in {target.parent for target in targets.values()}:
            directory.mkdir(parents=True, exist_ok=True)

        def download(name: str) -> None:
            bucket.download_file(keys[name], targets[name])

        with ArtifactProgressBar.files("Downloading artifacts", len(targets)) as progress:
            failures = self._run_all(download, targets, progress)
        _raise_for(failures, "downloading", place)
        return str(Path(destination, relative))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a folder with all below it; nothing there is no error.

        ``MLmodel`` goes first, so that no incomplete model looks complete.

        Args:
            artifact_path: file or folder, with or without trailing ``/``; ``None`` for the root.

        Raises:
            MlflowException: also if this would empty the whole bucket.
        """
        with mlflow_errors():
            place = self._place(artifact_path)
            if not place.path:
                raise MlflowException(
                    f"Refused to delete everything in the bucket {place}. "
                    "Name a folder within the bucket.",
                    error_code=INVALID_PARAMETER_VALUE,
                )
            bucket = self._bucket(place)
            bucket.require_password()
            keys = bucket.keys(place.path)
        with ArtifactProgressBar.files("Deleting artifacts", len(keys)) as progress:
            failures = self._run_all(bucket.delete, filter(is_mlmodel, keys), progress)
            others = (key for key in keys if not is_mlmodel(key))
            failures |= self._run_all(bucket.delete, others, progress)
        _raise_for(failures, "deleting", place)

    def _download_file(self, remote_file_path: str, local_path: PathArgument) -> None:
        with mlflow_errors():
            place = self._place(remote_file_path)
            self._bucket(place).download_file(place.path, local_path)

    def _place(self, path: str | None) -> BucketFSUri:
        return self._root.joinpath(path or "").require_bucket()

    def _bucket(self, place: BucketFSUri) -> Bucket:
        return Bucket(place, self._settings)

    def _keys_by_name(self, bucket: Bucket, place: BucketFSUri, relative: str) -> dict[str, str]:
        """Return the keys of all files at a place, by their path relative to the root."""
        keys = bucket.keys(place.path)
        # a key may be file and folder at the same time; then the folder is meant
        below = {
            join_key(relative, key[len(place.path) :].lstrip("/")): key
            for key in keys
            if key != place.path
        }
        if not below and place.path in keys:
            return {relative: place.path}
        if not below and relative:
            raise MlflowException(
                f"There is no artifact at '{place}'.", error_code=RESOURCE_DOES_NOT_EXIST
            )
        names, shadowed = split_shadowed(below)
        if shadowed:
            _logger.warning(
                "Not downloaded from %s, because folders have the same names: %s", place, shadowed
            )
        return {name: below[name] for name in names}

    def _run_all(
        self,
        action: Callable[[str], object],
        names: Iterable[str],
        progress: ArtifactProgressBar,
    ) -> dict[str, Exception]:
        return run_all(action, names, max_workers=self.max_workers, progress=progress)


def _any_of_model(failures: Iterable[str], mlmodel: str) -> bool:
    return any(belongs_to_model(name, mlmodel) for name in failures)


def _raise_for(failures: Mapping[str, Exception], action: str, place: BucketFSUri) -> None:
    if failures:
        raise aggregated(action, str(place), failures) from next(iter(failures.values()))


def _require_directory(path: str) -> None:
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
