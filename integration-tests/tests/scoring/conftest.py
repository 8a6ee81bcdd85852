"""Fixtures for the tests of scoring scripts."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@pytest.fixture(scope="session")
def as_writer(bucketfs_server):
    """Return a context manager that sets the write password of the embedded BucketFS.

    It yields its ``MonkeyPatch``, to set further variables.
    """

    @contextmanager
    def context():
        with pytest.MonkeyPatch.context() as environment:
            password = bucketfs_server.buckets[0].write_password
            environment.setenv("EXA_BUCKETFS_PASSWORD", password)
            yield environment

    return context
