"""Fixtures: the command in this process, and servers with a certificate like Exasol's own."""

from __future__ import annotations

import gc
import json
import os
import socket

import pytest
from click.testing import CliRunner
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer

SECRET = "open-sesame-42"
STEPS = [
    "uri",
    "environment",
    "plugin",
    "allowed_hosts",
    "resolve",
    "connect",
    "tls",
    "service",
    "list",
    "path",
    "write",
    "read_back",
    "delete",
    "mount",
]
CLEARED_PREFIXES = ("EXA_", "MLFLOW_", "REQUESTS_", "CURL_")


@pytest.fixture(autouse=True)
def clean_environment(environment):
    """Unset the machine's own settings."""
    for name in os.environ:
        if name.upper().startswith(CLEARED_PREFIXES) or name.lower().endswith("_proxy"):
            environment.delenv(name)


@pytest.fixture(scope="module")
def running_server():
    """Serve over HTTP and HTTPS, the latter with a certificate like Exasol's own."""
    buckets = [
        BucketConfig("default", write_password=SECRET),
        BucketConfig("private", public=False, write_password=SECRET),
    ]
    with BucketFSServer(buckets, tls_port=0) as server:
        yield server
    # Python 3.10's asyncio drops connections whose handshake the client aborts; without this,
    # they would be reported in another test
    gc.collect()


@pytest.fixture
def server(running_server):
    """Reset the server to its state after the start."""
    running_server.reset()
    return running_server


@pytest.fixture
def secret():
    """The write password, which no output may show."""
    return SECRET


@pytest.fixture
def step_names():
    """All steps, in their order."""
    return STEPS


@pytest.fixture
def closed_port():
    """A port without a listener, bound so that no other process gets it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


class Checked:
    """The command's output with ``--json``."""

    def __init__(self, result):
        assert SECRET not in result.output
        self.output = result.stdout
        self.exit_code = result.exit_code
        document = json.loads(result.stdout)
        assert set(document) == {"uri", "ok", "read_only", "steps"}
        assert document["ok"] == (result.exit_code == 0)
        self.uri = document["uri"]
        self.steps = {step["name"]: step for step in document["steps"]}
        assert list(self.steps) == STEPS

    def __getitem__(self, name):
        return self.steps[name]

    def names(self, result):
        """Return the steps with this result."""
        return [name for name, step in self.steps.items() if step["result"] == result]


@pytest.fixture
def run():
    """Run the command in this process."""

    def run(*arguments, password=SECRET, **environment):
        environment["EXA_BUCKETFS_PASSWORD"] = password
        return CliRunner().invoke(main, ["check", *arguments], env=environment)

    return run


@pytest.fixture
def check(run):
    """Run the command in this process and read its JSON."""

    def check(*arguments, **variables):
        result = run(*arguments, "--json", **variables)
        assert result.exit_code in {0, 1}, result.output
        return Checked(result)

    return check
