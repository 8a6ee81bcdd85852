"""Leave a BucketFS that outlives the tests as they found it."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from mlflow_bucketfs_core import Bucket, BucketFSError, BucketFSUri, ConnectionSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


def delete_folder(uri: str, environment: Mapping[str, str]) -> None:
    """Delete every object below a folder; one that cannot be deleted is a warning.

    It is no error, since the tests have passed or failed already for reasons of their own.

    Args:
        uri: URI of the folder.
        environment: Variables with credentials, as ``ConnectionSettings`` reads them.
    """
    folder = BucketFSUri.parse(uri)
    settings = ConnectionSettings.from_env(environment)
    try:
        bucket = Bucket(folder, settings)
        with ThreadPoolExecutor(settings.max_workers) as pool:
            # All are tried before the first error is raised
            deletions = [pool.submit(bucket.delete, key) for key in bucket.keys(folder.path)]
        for deletion in deletions:
            deletion.result()
    except BucketFSError as exc:
        with warnings.catch_warnings():
            # as an error it would end pytest with a traceback if the run was interrupted
            warnings.simplefilter("always")
            message = f"The tests' folder {uri} stays behind: {exc}"
            warnings.warn(pytest.PytestWarning(message), stacklevel=1)
