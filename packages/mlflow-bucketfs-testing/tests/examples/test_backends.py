"""Written once: on the embedded BucketFS by default, and on an Exasol with --backend=onprem."""

from __future__ import annotations

from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings


def publish(uri: str, text: str, settings: ConnectionSettings) -> None:
    """Store a text at a URI: the program under test."""
    target = BucketFSUri.parse(uri)
    Bucket(target, settings).upload_bytes(target.path, text.encode())


def test_publish(bucketfs_uri, bucketfs_target):
    """What was published can be read, whichever BucketFS it is."""
    settings = ConnectionSettings.from_env(bucketfs_target.environment)

    publish(f"{bucketfs_uri}/notes/today.txt", "all well", settings)

    folder = BucketFSUri.parse(bucketfs_uri)
    bucket = Bucket(folder, settings)
    assert bucket.keys(folder.path) == [f"{folder.path}/notes/today.txt"]
    assert b"".join(bucket.iter_content(f"{folder.path}/notes/today.txt")) == b"all well"
