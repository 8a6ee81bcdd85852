"""Resolve a model's URI to its folder in BucketFS, and read the model there."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from mlflow import MlflowClient, get_registry_uri, get_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings, udf_path
from mlflow_bucketfs_core.http.failures import causes_of
from mlflow_bucketfs_core.mounted import MLMODEL
from mlflow_bucketfs_core.uri import is_bucketfs_uri, redacted, strip_archive_suffix

from mlflow_bucketfs_plugin.host_policy import apply_host_policy
from mlflow_bucketfs_plugin.mlflow_errors import code_of
from mlflow_bucketfs_plugin.models import VOID_KEY
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.transfers import download_files, find_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROXIED = "mlflow-artifacts"
_NOT_FOUND = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
# A registered version may refer to a logged model, and that to a run
_MOST_STEPS = 4
_BLOCK_BYTES = 1 << 20
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """A model's version and location.

    Attributes:
        requested: the URI that was given, such as ``models:/churn@champion``.
        origin: the URI of the version, such as ``models:/churn/7``.
        uri: the model's folder in BucketFS.
        mounted: the folder as UDFs see it, below ``/buckets``.
    """

    requested: str
    origin: str
    uri: BucketFSUri
    mounted: str


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """The content of a model's folder: its ``MLmodel``, and the other files after a download.

    Attributes:
        uri: the folder.
        bucket: the bucket that contains it.
        keys: keys of its files in the bucket, by relative path.
        directory: local directory with the downloaded files.
        mlmodel: content of the ``MLmodel``.
        mlmodel_digest: SHA-256 of that file.
    """

    uri: BucketFSUri
    bucket: Bucket
    keys: Mapping[str, str]
    directory: Path
    mlmodel: Mapping[str, Any]
    mlmodel_digest: str

    def download(self) -> dict[str, str]:
        """Download the other files, and return the SHA-256 of each file by its relative path.

        Raises:
            MlflowException: a file cannot be downloaded.
        """
        others = {name: key for name, key in self.keys.items() if name != MLMODEL}
        download_files(self.bucket, self.uri, others, str(self.directory))
        return {name: _sha256(self.directory / name) for name in sorted(self.keys)}

    @property
    def size_bytes(self) -> int:
        """The total size of the downloaded files."""
        paths = (self.directory / name for name in self.keys)
        return sum(path.stat().st_size for path in paths if path.exists())

    @property
    def pyfunc(self) -> Mapping[str, Any]:
        """The flavor ``python_function``."""
        return self.flavor("python_function") or {}

    def flavor(self, name: str) -> Mapping[str, Any] | None:
        """Return a flavor's entries in the ``MLmodel``, or None."""
        flavor = self.mlmodel["flavors"].get(name)
        return flavor if isinstance(flavor, dict) else None

    def schema(self, part: str) -> list[dict[str, Any]] | None:
        """Return a part of the signature, ``inputs``, ``outputs`` or ``params``.

        MLflow's own class is not used, because it needs NumPy.

        Raises:
            ScriptError: it is not a list of JSON objects.
        """
        signature = self.mlmodel.get("signature")
        text = signature.get(part) if isinstance(signature, dict) else None
        if text is None:
            return None
        try:
            schema = json.loads(text)
        except (TypeError, ValueError):
            schema = None
        if not isinstance(schema, list) or not all(isinstance(spec, dict) for spec in schema):
            raise ScriptError(
                f"The signature in the model's MLmodel is damaged: its {part} are not a list in "
                "JSON."
            )
        return schema or None


def locate_model(
    model_uri: str, *, artifacts_destination: str | None = None, mounted: str | None = None
) -> ModelLocation:
    """Resolve a URI to a version of a model and its folder in BucketFS.

    Args:
        model_uri: ``models:/…``, ``runs:/…`` or a URI in BucketFS.
        artifacts_destination: the option of the tracking server, if it proxies artifacts.
        mounted: the model's folder as UDFs see it, if that does not follow from the URI.

    Raises:
        ScriptError: the model is in another store, or its artifacts are proxied and
            ``artifacts_destination`` is missing.
        MlflowException: the tracking server does not have the model, or cannot be reached.
        BucketFSError: the URI is malformed.
    """
    if mounted is not None and (
        not re.fullmatch(r"/[^\x00-\x1f\x7f]+", mounted) or ".." in mounted.split("/")
    ):
        raise ScriptError(
            f"--mounted-path: {mounted!r} is not the absolute path of a model, such as "
            "/buckets/bfsdefault/default/mlflow/…"
        )
    with _lookup_errors():
        origin, location = _resolve(model_uri)
    if location.startswith(f"{_PROXIED}:"):
        location = _behind_proxy(origin, location, artifacts_destination)
    if not is_bucketfs_uri(location):
        raise ScriptError(
            f"The model {redacted(origin)} is at {redacted(location)}, which is not in BucketFS. "
            f"Copy it there: mlflow-bucketfs copy {redacted(model_uri)} "
            "exa+bfss://host:port/service/bucket/folder"
        )
    uri = BucketFSUri.parse(location).require_bucket()
    return ModelLocation(
        requested=model_uri,
        origin=str(uri) if origin == location else origin,
        uri=uri,
        mounted=posixpath.normpath(mounted) if mounted is not None else udf_path(uri),
    )


def _resolve(model_uri: str) -> tuple[str, str]:
    origin = location = model_uri
    for step in range(_MOST_STEPS):
        if location.startswith("models:"):
            versioned, location = _registered(location)
        elif location.startswith("runs:"):
            versioned, location = location, _of_run(location)
        else:
            return origin, location
        if step == 0:
            origin = versioned
    raise ScriptError(
        f"{model_uri} refers to {location}, which refers to further models: it has no location."
    )


def _registered(uri: str) -> tuple[str, str]:
    _require_version(uri)
    client = MlflowClient()
    found = get_model_name_and_version(client, uri)
    if len(found) == 1:
        return f"models:/{found[0]}", str(client.get_logged_model(found[0]).artifact_location)
    name, version = found
    return f"models:/{name}/{version}", str(client.get_model_version_download_uri(name, version))


@contextmanager
def _lookup_errors() -> Iterator[None]:
    """Add to MLflow's errors where it looked, without a password, and the remedy."""
    try:
        yield
    except MlflowException as error:
        tracking, registry = get_tracking_uri(), get_registry_uri()
        server, variables = redacted(tracking), "MLFLOW_TRACKING_URI"
        if registry != tracking:
            server += f" (registry: {redacted(registry)})"
            variables += " or MLFLOW_REGISTRY_URI"
        # the exceptions of requests are OSErrors, too
        if failures := [e for e in causes_of(error, None) if isinstance(e, OSError)]:
            reason = failures[-1].strerror or type(failures[-1]).__name__
            message = (
                f"The tracking server {server} cannot be reached: {reason}. Start it, or set "
                f"{variables} to the right address."
            )
            # MLflow's message has the URL, which may contain a password
            raise MlflowException(message, error_code=code_of(error)) from None
        text = error.message.rstrip(".")
        # for aliases and stages, MLflow has other codes
        if error.error_code == _NOT_FOUND or text.endswith("found"):
            message = (
                f"{text}. It was looked for in {server}. If it is in another tracking server or "
                f"database, set {variables} to its URI."
            )
            raise MlflowException(message, error_code=code_of(error)) from error
        raise


def require_known(uri: str) -> None:
    """Raise if a ``models:`` or ``runs:`` URI refers to nothing on the tracking server.

    Other URIs, and those that name their server, are not looked up.

    Raises:
        ScriptError: see :func:`_require_version`.
        MlflowException: the tracking server does not have it, or cannot be reached.
    """
    with _lookup_errors():
        if re.match("models:/(?!/)", uri):
            _registered(uri)
        elif re.match("runs:/(?!/)", uri):
            MlflowClient().get_run(RunsArtifactRepository.parse_runs_uri(uri)[0])


def _require_version(uri: str) -> None:
    """Raise if a ``models:`` URI has only a name, which MLflow reads as a logged model's id.

    Raises:
        ScriptError: it has neither a version nor an alias, and is no id.
    """
    match = re.fullmatch(r"models:/([^/@]+)", uri)
    if match and not match[1].startswith("m-"):
        raise ScriptError(
            f"{uri} has neither a version nor an alias. Add one: {uri}/1, {uri}@champion"
        )


def _of_run(uri: str) -> str:
    """Return the location of a logged model of a run, or else of the run's artifacts.

    MLflow prefers the files of the logged model, too.
    """
    client = MlflowClient()
    run_id, path = RunsArtifactRepository.parse_runs_uri(uri)
    name, _, below = (path or "").partition("/")
    experiment = client.get_run(run_id).info.experiment_id
    # no logged model has a quotation mark in its name
    token: str | None = None if name and "'" not in name else ""
    while token != "":
        page = client.search_logged_models(
            [experiment], filter_string=f"name = '{name}'", page_token=token
        )
        for model in page:
            if model.source_run_id == run_id:
                return (
                    posixpath.join(model.artifact_location, below)
                    if below
                    else str(model.artifact_location)
                )
        token = page.token or ""
    return str(RunsArtifactRepository.get_underlying_uri(uri))


def _behind_proxy(origin: str, location: str, destination: str | None) -> str:
    if destination is None:
        raise ScriptError(
            f"The model {origin} is at {location}: the tracking server proxies artifacts. Name its "
            "store with the option that `mlflow server` was started with: "
            "--artifacts-destination exa+bfss://host:port/service/bucket/folder"
        )
    if not is_bucketfs_uri(destination):
        raise ScriptError(
            f"--artifacts-destination: {redacted(destination)} is not in BucketFS. Copy the model "
            f"there: mlflow-bucketfs copy {origin} exa+bfss://host:port/service/bucket/folder"
        )
    # not percent-decoded, because the server does not decode it for BucketFS either
    return str(BucketFSUri.parse(destination).joinpath(urlsplit(location).path))


@contextmanager
def fetched_model(location: ModelLocation) -> Iterator[StoredModel]:
    """Read a model into a temporary directory, over HTTP even if its bucket is mounted.

    Raises:
        ScriptError: there is no model, its ``MLmodel`` is damaged, or it contains archives, which
            UDFs see unpacked.
        MlflowException: its ``MLmodel`` cannot be downloaded.
        BucketFSError: the bucket cannot be listed.
    """
    uri = location.uri
    bucket = Bucket(uri, apply_host_policy(uri, ConnectionSettings.from_env()))
    keys = find_files(bucket.keys(uri.path), uri, "")
    if MLMODEL not in keys:
        raise ScriptError(
            f"There is no model at '{uri}': it has no MLmodel. Name the folder of a model."
        )
    if archives := sorted(name for name in keys if strip_archive_suffix(name) != name):
        raise ScriptError(
            f"The model at '{uri}' contains archives, which BucketFS unpacks, so that UDFs do not "
            f"see these files: {', '.join(archives)}. Log the model with them under another "
            "suffix, such as .zipx."
        )
    with tempfile.TemporaryDirectory(prefix="mlflow-bucketfs-") as directory:
        download_files(bucket, uri, {MLMODEL: keys[MLMODEL]}, directory)
        mlmodel = Path(directory, MLMODEL)
        yield StoredModel(
            uri=uri,
            bucket=bucket,
            keys=keys,
            directory=Path(directory),
            mlmodel=_read_mlmodel(mlmodel, uri),
            mlmodel_digest=_sha256(mlmodel),
        )


def _read_mlmodel(path: Path, uri: BucketFSUri) -> dict[str, Any]:
    try:
        content: Any = yaml.load(path.read_bytes(), _YamlLoader)  # noqa: S506 -- a safe one
    except (yaml.YAMLError, ValueError) as error:
        raise ScriptError(f"The MLmodel at '{uri}' is damaged: {error}") from error
    description: dict[str, Any] = content if isinstance(content, dict) else {}
    if VOID_KEY in description:
        raise ScriptError(f"The model at '{uri}' is incomplete: {description[VOID_KEY]}")
    flavors = description.get("flavors")
    if not isinstance(flavors, dict) or not isinstance(flavors.get("python_function"), dict):
        raise ScriptError(
            f"The model at '{uri}' cannot be scored: it has no flavor python_function."
        )
    return description


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
