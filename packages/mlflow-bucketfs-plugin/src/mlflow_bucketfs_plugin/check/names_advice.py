"""What to say about service and bucket in a URI: names that are left out, or cannot be checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.mounted import bucket_udf_path
from mlflow_bucketfs_core.uri import join_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

_USUAL_SERVICE, _USUAL_BUCKET = "bfsdefault", "default"


def appended_names(uri: BucketFSUri) -> str:
    """Propose how a URI that ends before the bucket goes on."""
    if uri.service in {"", _USUAL_SERVICE}:
        what = "the bucket" if uri.service else "service and bucket"
        usual = replace(uri, service=_USUAL_SERVICE, bucket=_USUAL_BUCKET)
        return f"Append {what}, on most systems: {usual}"
    return (
        f"If '{uri.service}' is the bucket, put its service before it, on most systems: "
        f"{_with_service(uri)}\n"
        f"If '{uri.service}' is the service, append the bucket."
    )


def for_unknown_bucket(uri: BucketFSUri, buckets: Sequence[str]) -> str:
    """Propose what is meant by a URI whose bucket does not exist.

    Args:
        uri: it names service and bucket.
        buckets: those that exist, as far as the service tells them.
    """
    lines = [f"The buckets there are: {', '.join(buckets)}"] if buckets else []
    if uri.service in buckets:
        lines.append(
            f"'{uri.service}', which the URI gives as the service, is one of them. "
            f"Is the service missing? Then use, on most systems: {_with_service(uri)}"
        )
    elif uri.service == _USUAL_SERVICE and buckets:
        bucket = _USUAL_BUCKET if _USUAL_BUCKET in buckets else buckets[0]
        folder = join_key(uri.bucket, uri.path)
        lines.append(
            f"If '{uri.bucket}' is a folder, the bucket is missing before it: "
            f"{replace(uri, bucket=bucket, path=folder)}"
        )
    else:
        folder = f", folder '{uri.path}'" if uri.path else ""
        lines.append(
            "Is the service or the bucket missing in the URI? "
            f"It is read as service '{uri.service}', bucket '{uri.bucket}'{folder}."
        )
    return "\n".join(lines)


def _with_service(uri: BucketFSUri) -> BucketFSUri:
    """Return the URI with the usual service put before its first name."""
    folder = join_key(uri.bucket, uri.path)
    return replace(uri, service=_USUAL_SERVICE, bucket=uri.service, path=folder)


def for_unchecked_service(uri: BucketFSUri, settings: ConnectionSettings) -> str | None:
    """Say that the service's name was not checked, if it is unusual and nothing shows it."""
    if not uri.bucket or uri.service == _USUAL_SERVICE:
        return None
    if Path(bucket_udf_path(uri, settings.mount_root)).is_dir():
        return None
    return (
        f"The name '{uri.service}' is not checked: the port decides which service answers, "
        "whatever name the URI gives it.\n"
        f"UDFs see the bucket as {bucket_udf_path(uri)}, so it must be the service's name in the "
        "database's configuration."
    )
