"""Fixtures: the embedded BucketFS, emptied before each test, and Python in child processes."""

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

# how long an example takes depends on the load of the machine
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")

# Prefixes of variables of the developer that requests, this package and MLflow would read
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
    # a host name that only proxies resolve
    with BucketFSServer(buckets, tls_port=0, allowed_hosts=["bucketfs.invalid"]) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The shared server, reset before each test."""
    shared_server.reset()
    return shared_server


@pytest.fixture
def own_server():
    """A server for one test only, whose requests may outlive the test."""
    with BucketFSServer(tls_port=0) as server:
        yield server


@pytest.fixture
def settings():
    """Settings that may write, and that do not wait between attempts."""
    return ConnectionSettings(password="write", backoff_factor=0.0, backoff_jitter=0.0)


@pytest.fixture
def bucket(server, settings):
    """The public bucket, with the password to write."""
    return Bucket(server.uri(), settings)


@pytest.fixture
def start_python():
    """Start Python code in a child process, which is killed after the test."""
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
    """Run Python code in a child process, and return its output and error output."""

    def run(code, *arguments):
        process = start_python(code, *arguments)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return out, err

    return run


@pytest.fixture
def wait_until():
    """Wait for a condition that another thread or process fulfils."""

    def wait(condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "the condition was not fulfilled in time"
            time.sleep(0.01)

    return wait
