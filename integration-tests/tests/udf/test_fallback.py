"""The script of ``docs/user/udfs.md`` that falls back to HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow_bucketfs_core import udf_path

from . import page
from .executors import Exasol


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_with_a_fallback(udfs, models, bucketfs_server, tmp_path, harm):
    """A model that is missing or damaged on the mount is loaded over HTTP, with the password."""
    real = isinstance(udfs.executor, Exasol)
    if not real:
        udfs.executor.mount = Path(shutil.copytree(udfs.executor.mount, tmp_path / "mount"))
        model = udfs.executor.mount / udf_path(models.location).removeprefix("/buckets/")
        if harm == "missing":
            shutil.rmtree(model)
        else:
            damaged = next(model.glob("model.*"))
            damaged.unlink()  # the copy is read-only, as on the mount
            damaged.write_bytes(b"damaged")
        udfs.executor.allow(bucketfs_server.url)
        udfs.stand_ins[page.READ_PASSWORD] = "read"
    elif harm == "missing":
        pytest.skip("the mount of a database has every model that is in BucketFS")
    assert udfs.read("With a fallback to HTTP") == [(models.species[0],)]
    if not real:
        assert bucketfs_server.requests.listings == 1
        assert {request.user for request in bucketfs_server.requests} == {"r"}
