"""HTTP to BucketFS: the only part of this package that talks to the network."""

from mlflow_bucketfs_core.transport.bucket import Bucket

__all__ = ["Bucket"]
