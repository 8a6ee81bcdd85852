"""An embedded BucketFS: a double of Exasol's BucketFS over HTTP(S), with its UDF mount.

It shares no code with the client packages, so that a mistake in one is not repeated in the other.
"""

from __future__ import annotations

from mlflow_bucketfs_testing.server.bucketfs_server import BucketFSServer
from mlflow_bucketfs_testing.server.faults import Fault
from mlflow_bucketfs_testing.server.profiles import Profile
from mlflow_bucketfs_testing.server.protocol import BucketConfig, IllegalNameError
from mlflow_bucketfs_testing.server.request_log import RequestLog, RequestRecord
from mlflow_bucketfs_testing.server.sockets import PortInUseError

__all__ = [
    "BucketConfig",
    "BucketFSServer",
    "Fault",
    "IllegalNameError",
    "PortInUseError",
    "Profile",
    "RequestLog",
    "RequestRecord",
]
