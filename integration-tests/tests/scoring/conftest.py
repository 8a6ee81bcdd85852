"""What the tests of scoring scripts share."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@pytest.fixture(scope="session")
def as_writer(bucketfs_server):
    """Return a context in which this process may write to the embedded BucketFS.

    It yields the ``MonkeyPatch`` that ends with it, for more variables.
    """

    @contextmanager
    def context():
        with pytest.MonkeyPatch.context() as environment:
            password = bucketfs_server.buckets[0].write_password
            environment.setenv("EXA_BUCKETFS_PASSWORD", password)
            yield environment

    return context
