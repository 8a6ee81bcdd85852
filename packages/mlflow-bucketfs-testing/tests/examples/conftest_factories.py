"""A conftest with servers other than the default ones."""

from __future__ import annotations

from mlflow_bucketfs_testing import BucketConfig, factories

# As slow as a real BucketFS: every PUT takes a second
slow_bucketfs = factories.bucketfs_server(profile="docker-db")

private_bucketfs = factories.bucketfs_server(
    scope="function",
    buckets=[BucketConfig("models", public=False, write_password="secret")],
)

# Clients need no password: the MLflow server stores for them
proxying_mlflow = factories.mlflow_server(
    artifacts_destination="{bucketfs_uri}/proxied",
    workers=2,
)
