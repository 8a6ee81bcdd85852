"""A real server for everything: the embedded BucketFS, emptied before each test."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import settings as hypothesis_settings
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer

# an example takes as long as the machine is busy
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")

# What requests, this package and MLflow would take from the developer's own environment
FOREIGN_VARIABLES = ("EXA_", "MLFLOW_HTTP", "MLFLOW_ARTIFACT", "REQUESTS_CA", "CURL_CA", "NETRC")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Hide the machine's own proxies, certificates and passwords."""
    for name in os.environ:
        if name.startswith(FOREIGN_VARIABLES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_server():
    """One server with a public and a private bucket, over HTTP and HTTPS."""
    buckets = [BucketConfig("default"), BucketConfig("private", public=False)]
    # a name that only proxies know
    with BucketFSServer(buckets, tls_port=0, allowed_hosts=["bucketfs.invalid"]) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The shared server as if just started."""
    shared_server.reset()
    return shared_server


@pytest.fixture
def own_server():
    """A server of the test's own, for requests that outlive it."""
    with BucketFSServer(tls_port=0) as server:
        yield server


@pytest.fixture
def settings():
    """Settings that may write, and that do not wait between tries."""
    return ConnectionSettings(password="write", backoff_factor=0.0, backoff_jitter=0.0)


@pytest.fixture
def bucket(server, settings):
    """The public bucket, with the password to write."""
    return Bucket(server.uri(), settings)


@pytest.fixture
def start_python():
    """Start Python code in a process of its own, which does not outlive the test."""
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_python(start_python):
    """Run Python code in a process of its own and return what it printed."""

    def run(code, *arguments):
        process = start_python(code, *arguments)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return out, err

    return run


@pytest.fixture
def wait_until():
    """Wait for a condition that another thread or process brings about."""

    def wait(condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.01)

    return wait
