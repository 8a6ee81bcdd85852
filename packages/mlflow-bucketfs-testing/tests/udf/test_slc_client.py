"""UDF clients in a container without Docker: root runs this machine's file system as a container.

``integration-tests/tests/udf`` tests them in a real container with Docker.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import zmq
from mlflow_bucketfs_testing import (
    SlcClient,
    UdfClientDiedError,
    UdfClientError,
    UdfRunner,
    UdfTimeoutError,
)

_PACKAGES = Path(zmq.__file__).parents[1]
_SCRIPT = "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS VARCHAR(2000) AS\ndef run(ctx):\n    "


@pytest.fixture(scope="module")
def container(container_python):
    """Return a directory that is a container with the Python version of the tests."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if container_python != ours:
        pytest.skip(f"the system's python3 is {container_python}, the packages are for {ours}")
    return "/"


@pytest.fixture
def client(container):
    """Return the reference client in the container."""
    return SlcClient(container, reference_packages=_PACKAGES, python="3")


def test_a_script_runs_as_in_a_database(client, bucketfs_server):
    """A script runs as another user, without a network, with the buckets at ``/buckets``."""
    bucketfs_server.put("slc-client.txt", b"42")
    bucketfs_server.sync_mount()
    with UdfRunner(client, buckets=bucketfs_server) as runner:
        assert runner.sees_buckets
        assert runner.client == "slc:/ (reference client)"
        udf = runner.create(
            _SCRIPT + "import os, socket\n"
            "    names = [name for _, name in socket.if_nameindex()]\n"
            "    text = open('/buckets/bfsdefault/default/slc-client.txt').read()\n"
            "    return repr((text, os.getuid(), names, 'EXA_BUCKETFS_MOUNT_ROOT' in os.environ))"
        )
        assert udf.run([(1,), (2,)]).rows == [("('42', 500, ['lo'], False)",)] * 2


def test_a_server_of_this_machine_is_reached(container, bucketfs_server):
    """With ``reach``, a script reaches the server under its address on this machine."""
    bucketfs_server.put("reached.txt", b"hello")
    address = bucketfs_server.url.removeprefix("http://")
    client = SlcClient(container, reach=[address], reference_packages=_PACKAGES, python="3")
    with UdfRunner(client) as runner:
        udf = runner.create(
            f"{_SCRIPT}from urllib.request import urlopen\n"
            f"    return urlopen('{bucketfs_server.url}/default/reached.txt').read().decode()"
        )
        assert udf.run([(1,)]).rows == [("hello",)]


@pytest.fixture
def temporary(monkeypatch):
    """Return a directory for temporary files, short enough for sockets."""
    with TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.parametrize(
    ("code", "error", "timeout_s"),
    [
        ("while True: pass", UdfTimeoutError, 5),
        ("import os; os._exit(3)", UdfClientDiedError, 300),
    ],
)
def test_nothing_of_a_run_is_left(client, temporary, code, error, timeout_s):
    """No process and no file is left after a script takes too long or kills its process."""
    with (
        UdfRunner(client, timeout_s=timeout_s) as runner,
        pytest.raises(error, match="its last output:\n    begun"),
    ):
        runner.create(f"{_SCRIPT}print('begun', flush=True)\n    {code}").run([(1,)])
    assert psutil.wait_procs(_in_containers(temporary), timeout=10)[1] == []
    assert list(temporary.iterdir()) == []


def test_a_killed_runner_leaves_no_client(container, temporary, wait_until):
    """The client ends after the runner is killed, because the guard removes its socket."""
    code = f"print({temporary.name!r}, flush=True)\n    import time; time.sleep(600)"
    source = (
        "from mlflow_bucketfs_testing import SlcClient, UdfRunner\n"
        f"client = SlcClient({container!r}, reference_packages={str(_PACKAGES)!r}, python='3')\n"
        "with UdfRunner(client) as runner:\n"
        f"    runner.create({_SCRIPT + code!r}).run([(1,)])\n"
    )

    def directory():
        # always in /tmp, because the container's user must reach the socket
        logs = temporary.parent.glob("udf-*/output")
        return next((log.parent for log in logs if temporary.name in _text(log)), None)

    with subprocess.Popen([sys.executable, "-c", source]) as process:
        wait_until(lambda: directory() or process.poll() is not None)
        begun, clients = directory(), _in_containers(temporary)
        process.kill()
    assert begun
    assert clients
    wait_until(lambda: not begun.exists() and not _in_containers(temporary))


@pytest.mark.usefixtures("container")
def test_a_container_without_a_client_is_refused():
    """The error names the base images that contain a client."""
    with (
        UdfRunner("slc:/") as runner,
        pytest.raises(UdfClientError, match=r"no UDF client /exaudf/exaudfclient: build it on"),
    ):
        runner.create(_SCRIPT + "return ''").run([(1,)])


def test_a_missing_container_is_named(tmp_path):
    """The error has the path of the missing container."""
    with (
        UdfRunner(f"slc:{tmp_path}/none.tar.gz") as runner,
        pytest.raises(UdfClientError, match=r"no exported container .*/none\.tar\.gz"),
    ):
        runner.create(_SCRIPT + "return ''").run([(1,)])


def _in_containers(temporary):
    """Return the processes of containers in which a part of a directory is mounted."""
    found = []
    for process in psutil.process_iter():
        mounted = _text(Path(f"/proc/{process.pid}/mountinfo"))
        found += [process] * (f"{temporary.name}/" in mounted)
    return found


def _text(file):
    # files of other processes may be gone, or partially written
    with suppress(OSError):
        return file.read_text(errors="replace")
    return ""
