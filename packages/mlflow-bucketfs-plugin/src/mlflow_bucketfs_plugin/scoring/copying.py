"""Copy models and folders from any MLflow store to BucketFS, where UDFs can read them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings, udf_path
from mlflow_bucketfs_core.mounted import MLMODEL
from mlflow_bucketfs_core.uri import join_key, redacted

from mlflow_bucketfs_plugin.host_policy import apply_host_policy
from mlflow_bucketfs_plugin.models import is_mlmodel, void_mlmodel
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.sources import fetch
from mlflow_bucketfs_plugin.transfers import delete_keys, files_below

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A folder that was copied to BucketFS.

    Attributes:
        uri: its URI in BucketFS.
        mounted: its path as UDFs see it, below ``/buckets``.
        files: number of its files.
        size_bytes: their total size.
        deleted: number of files that were deleted, because the source does not have them.
    """

    uri: str
    mounted: str
    files: int
    size_bytes: int
    deleted: int


def copy_model(source_uri: str, target_uri: str, *, replace: bool = False) -> Copied:
    """Copy a model or a folder from any MLflow store to BucketFS, ``MLmodel`` last.

    Args:
        source_uri: a URI that MLflow can download (``models:/…``, ``runs:/…``, ``s3://…``), or a
            directory.
        target_uri: a folder in BucketFS.
        replace: write into a folder that is not empty, and delete files that the source does not
            have.

    Raises:
        ScriptError: the target is not a folder in BucketFS, is not empty, or with ``replace`` has
            other models in folders below it; or the source is not a folder, or has neither a
            version nor an alias. Nothing was changed.
        MlflowException: the source cannot be read, or the target cannot be written.
        BucketFSError: the target is malformed, or its bucket cannot be listed.
    """
    if "://" not in target_uri:
        raise ScriptError(
            f"The target {target_uri!r} is not a URI in BucketFS, such as "
            "exa+bfss://host:port/service/bucket/folder."
        )
    target = BucketFSUri.parse(target_uri).require_bucket()
    if not target.path:
        raise ScriptError(f"The target {target} names a bucket only. Name a folder in it.")
    bucket = Bucket(target, apply_host_policy(target, ConnectionSettings.from_env()))
    bucket.require_password()
    existing = bucket.keys(target.path)
    if existing and not replace:
        _refuse_models_below(target, existing)
        raise ScriptError(
            f"There are {len(existing)} file(s) at {target} already. Choose another folder, or "
            "replace them: --replace"
        )
    with tempfile.TemporaryDirectory(prefix="mlflow-bucketfs-") as temporary:
        source = _local(source_uri, temporary)
        files = files_below(source)
        if not files:
            raise ScriptError(f"There is nothing to copy in {redacted(source_uri)}.")
        stale = set(existing) - {join_key(target.path, name) for name in files}
        _refuse_models_below(target, stale)
        if stale:
            # first, so that a partial model is never loaded
            for key in filter(is_mlmodel, existing):
                bucket.upload_bytes(key, void_mlmodel())
            delete_keys(bucket, target, sorted(stale))
        BucketFSArtifactRepository(str(target)).log_artifacts(source)
        return Copied(
            uri=str(target),
            mounted=udf_path(target),
            files=len(files),
            size_bytes=sum(file.stat().st_size for file in files.values()),
            deleted=len(stale),
        )


def _refuse_models_below(target: BucketFSUri, keys: Iterable[str]) -> None:
    """Raise if keys include a model below the target, such as in the root of an artifact store."""
    own = join_key(target.path, MLMODEL)
    if others := sorted(key for key in keys if is_mlmodel(key) and key != own):
        model = others[0].removeprefix(f"{target.path}/").removesuffix(f"/{MLMODEL}")
        raise ScriptError(
            f"{target} contains {len(others)} other model(s), such as {model}, which are never "
            "deleted by a copy. Choose a folder of its own for the copy, such as "
            f"{target}/NAME."
        )


def _local(source_uri: str, temporary: str) -> Path:
    # without dst_path, a model on a mounted bucket would be returned as links
    source = fetch(source_uri, dst_path=temporary)
    if source_uri.startswith("models:") and source != Path(source_uri):
        # added by MLflow, not a file of the model
        (source / REGISTERED_MODEL_META_FILE_NAME).unlink(missing_ok=True)
    if not source.is_dir():
        raise ScriptError(
            f"{redacted(source_uri)} is a file. Name the folder of a model, or another folder."
        )
    return source
