"""Test on the embedded BucketFS, or on an Exasol with --backend=onprem."""

from __future__ import annotations

from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings


def publish(uri: str, text: str, settings: ConnectionSettings) -> None:
    """Store a text at a URI: the program under test."""
    target = BucketFSUri.parse(uri)
    Bucket(target, settings).upload_bytes(target.path, text.encode())


def test_publish(bucketfs_uri, bucketfs_target):
    """A published text can be read, on every BucketFS."""
    settings = ConnectionSettings.from_env(bucketfs_target.environment)

    publish(f"{bucketfs_uri}/notes/today.txt", "all well", settings)

    folder = BucketFSUri.parse(bucketfs_uri)
    bucket = Bucket(folder, settings)
    key = f"{folder.path}/notes/today.txt"
    assert bucket.keys(folder.path) == [key]
    assert b"".join(bucket.iter_content(key)) == b"all well"
