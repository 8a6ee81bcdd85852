"""Fixtures shared by the tests of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil
import pytest
from hypothesis import settings
from mlflow_bucketfs_testing.process_session import MARKER

# no deadline, because a busy machine may be slow
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def bare_environment(monkeypatch):
    """Unset the variables of the developer and of this run, for the pytest runs of the tests."""
    prefixes = ("MLFLOW_", "EXA_", "BUCKETFS_", "EXASOL_", "ITDE_", "SAAS_", "PYTEST_ADDOPTS")
    for name in os.environ:
        if name.startswith(prefixes):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def container_python():
    """Return the version of the Python of ``/``, which is a container for root on Linux."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux runs a container without Docker")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not on the path: apt-get install util-linux")
    # with commands of the system only: a fault of the tested code must not skip its tests
    unshare = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork"]
    mount = ["mount", "-t", "proc", "proc", "/proc"]
    done = subprocess.run([*unshare, *mount], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"root cannot create namespaces on this machine: {done.stderr.strip()}")
    # the PATH in a container, without the folders of this process's own Python
    folders = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    python = shutil.which("python3", path=folders)
    if python is None:
        pytest.skip(f"no python3 in {folders}: apt-get install python3")
    version = [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    return subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def fixture_names():
    """Return the names of all fixtures that the plugin defines."""
    return [
        "bucketfs_server",
        "bucketfs_target",
        "bucketfs_uri",
        "mlflow_client_env",
        "mlflow_environment",
        "mlflow_server",
        "mlflow_server_host",
        "mlflow_tracking_uri",
        "mlflow_udf_tracking_uri",
        "slc_archive",
        "slc_container",
        "udf_runner",
    ]


@pytest.fixture
def wait_until():
    """Return a function that waits for a condition; its timeout is for busy machines."""

    def wait(condition):
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, "the condition was not met in time"
            time.sleep(0.1)

    return wait


@pytest.fixture
def session_processes(monkeypatch):
    """Return a function that returns the ids of the processes in this test's process sessions."""
    # inherited by all processes of this test: other tests on this machine have sessions too
    monkeypatch.setenv("STARTED_BY_TEST", uuid.uuid4().hex)

    def running():
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("STARTED_BY_TEST") == os.environ["STARTED_BY_TEST"]
                if ours and MARKER in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process.pid)
        return found

    return running


@pytest.fixture
def nothing_left(session_processes, wait_until):
    """Check after the test that no process of its MLflow servers is left."""
    yield
    wait_until(lambda: not session_processes())
