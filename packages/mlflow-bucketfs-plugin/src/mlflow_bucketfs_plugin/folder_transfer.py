"""Whole folders up, down and away: many requests at once, failures collected."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow_bucketfs_core.uri import join_key, split_key, strip_archive_suffix

from mlflow_bucketfs_plugin.artifact_tree import (
    belongs_to_model,
    is_mlmodel,
    mlmodels_inside_out,
    split_shadowed,
)
from mlflow_bucketfs_plugin.mlflow_errors import aggregated
from mlflow_bucketfs_plugin.model_parts import void_mlmodel
from mlflow_bucketfs_plugin.parallel import progress_bar, run_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow_bucketfs_core import Bucket, BucketFSUri

    from mlflow_bucketfs_plugin.mounted_bucket import MountedBucket

_logger = logging.getLogger(__name__)


def upload_folder(bucket: Bucket, folder: BucketFSUri, files: Mapping[str, Path]) -> None:
    """Upload files, ``MLmodel`` after all others of its directory, and only if these succeeded.

    One that exists already is first replaced by one that vouches for nothing, so that a model is
    complete where there is an ``MLmodel``, however an upload over it ends.

    Args:
        bucket: where to.
        folder: the folder in it.
        files: local files by their path within the folder.

    Raises:
        BucketFSError: nothing was uploaded, because some of it could not have worked.
        MlflowException: all failures; the other files were uploaded, unless the password was
            refused.
    """
    keys = {name: join_key(folder.path, name) for name in files}
    _warn_of_archives_in_models(files, folder)
    there = bucket.prepare_uploads(keys.values())
    overwritten = [name for name in files if is_mlmodel(name) and keys[name] in there]
    workers = bucket.settings.max_workers
    void = void_mlmodel()

    def upload(name: str) -> None:
        bucket.upload_file(keys[name], files[name])

    def invalidate(name: str) -> None:
        bucket.upload_bytes(keys[name], void)

    count = len(files) + len(overwritten)
    with progress_bar("Uploading artifacts", count) as progress:
        failures: dict[str, Exception] = {}
        for models in reversed(mlmodels_inside_out(overwritten)):
            todo = [mlmodel for mlmodel in models if not _in_any_model(mlmodel, failures)]
            failures |= run_all(invalidate, todo, max_workers=workers, progress=progress)
        # nothing goes into a model whose MLmodel may still vouch for it
        untouched = list(failures)
        others = [n for n in files if not is_mlmodel(n) and not _in_any_model(n, untouched)]
        failures |= run_all(upload, others, max_workers=workers, progress=progress)
        held_back: list[str] = []
        for models in mlmodels_inside_out(files):
            incomplete = [
                mlmodel
                for mlmodel in models
                if _in_any_model(mlmodel, untouched)
                or any(belongs_to_model(name, mlmodel) for name in (*failures, *held_back))
            ]
            complete = [m for m in models if m not in incomplete]
            failures |= run_all(upload, complete, max_workers=workers, progress=progress)
            held_back += incomplete
    notes = []
    if untouched:
        notes.append(
            "Nothing was uploaded to these models, because their earlier MLmodel could not be "
            f"replaced first: {', '.join(untouched)}"
        )
    if held_back := [mlmodel for mlmodel in held_back if not _in_any_model(mlmodel, untouched)]:
        notes.append(f"Not uploaded, because their models lack files: {', '.join(held_back)}")
    _raise_for(failures, "uploading", folder, "\n".join(notes))


def find_files(keys: Iterable[str], place: BucketFSUri, relative: str) -> dict[str, str]:
    """Find what a path stands for in a listing: a file, or all files of a folder.

    A key may be both; then the folder is meant.

    Args:
        keys: what is listed at and below the path.
        place: the path within the bucket.
        relative: the same path as MLflow knows it; empty for the repository's root.

    Returns:
        Keys by their path relative to the repository's root.

    Raises:
        MlflowException: there is nothing; an empty root is no error.
    """
    keys = list(keys)
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


def download_files(
    bucket: Bucket,
    place: BucketFSUri,
    keys: Mapping[str, str],
    destination: str,
    mounted: MountedBucket | None = None,
) -> None:
    """Download files below a directory, one GET each.

    Args:
        bucket: where from.
        place: what is downloaded, for messages.
        keys: see :func:`find_files`.
        destination: existing directory.
        mounted: the same bucket on the mount: files that are there are copied, without a GET.

    Raises:
        InvalidKeyError: a key would lead out of the directory; nothing was downloaded.
        MlflowException: all failures; the other files were downloaded, unless the password was
            refused.
    """
    targets = {name: Path(destination, *split_key(name)) for name in keys}
    for directory in {target.parent for target in targets.values()}:
        directory.mkdir(parents=True, exist_ok=True)

    def download(name: str) -> None:
        if mounted is None or not mounted.copy_if_present(keys[name], targets[name]):
            bucket.download_file(keys[name], targets[name])

    with progress_bar("Downloading artifacts", len(keys)) as progress:
        failures = run_all(
            download, keys, max_workers=bucket.settings.max_workers, progress=progress
        )
    _raise_for(failures, "downloading", place)


def delete_folder(bucket: Bucket, place: BucketFSUri) -> None:
    """Delete a file or a folder, ``MLmodel`` first, so that no rest looks like a whole model.

    For the same reason a model whose ``MLmodel`` cannot be deleted stays as it is.

    Raises:
        BucketFSError: the bucket cannot be listed.
        MlflowException: all failures; the other files were deleted, unless the password was
            refused.
    """
    keys = bucket.keys(place.path)
    workers = bucket.settings.max_workers
    with progress_bar("Deleting artifacts", len(keys)) as progress:
        models = [key for key in keys if is_mlmodel(key)]
        others = [key for key in keys if not is_mlmodel(key)]
        failures = run_all(bucket.delete, models, max_workers=workers, progress=progress)
        others = [key for key in others if not _in_any_model(key, failures)]
        failures |= run_all(bucket.delete, others, max_workers=workers, progress=progress)
    _raise_for(failures, "deleting", place)


def _warn_of_archives_in_models(names: Iterable[str], folder: BucketFSUri) -> None:
    names = list(names)
    models = [name for name in names if is_mlmodel(name)]
    archives = [n for n in names if strip_archive_suffix(n) != n and _in_any_model(n, models)]
    if archives:
        _logger.warning(
            "The model for %s contains archives, which BucketFS unpacks: UDFs will see folders "
            "without the suffix in their place, and find these files over HTTP only: %s",
            folder,
            ", ".join(archives),
        )


def _in_any_model(name: str, mlmodels: Iterable[str]) -> bool:
    return any(belongs_to_model(name, mlmodel) for mlmodel in mlmodels)


def _raise_for(
    failures: Mapping[str, Exception], action: str, place: BucketFSUri, note: str = ""
) -> None:
    if failures:
        raise aggregated(action, str(place), failures, note) from next(iter(failures.values()))
