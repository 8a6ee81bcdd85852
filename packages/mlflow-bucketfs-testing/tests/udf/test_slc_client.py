"""UDF clients in a container, here this machine's own files, which root runs without Docker.

With a real container, by Docker, they are tested in ``integration-tests/tests/udf``.
"""

from __future__ import annotations

import os
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
    SlcContainer,
    UdfClientDiedError,
    UdfClientError,
    UdfRunner,
    UdfTimeoutError,
)

_PACKAGES = Path(zmq.__file__).parents[1]
_SCRIPT = "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS VARCHAR(2000) AS\ndef run(ctx):\n    "


@pytest.fixture(scope="module")
def container():
    """A directory that is a container with a Python of this one's version."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root on Linux runs a container without Docker")
    version = "import sys; print(sys.version_info[:2])"
    done = SlcContainer("/").run(["python3", "-c", version], check=False)
    if done.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("no namespaces here, or no /usr/bin/python3 of the version of this Python")
    return "/"


@pytest.fixture
def client(container):
    """Return the reference client in the container."""
    return SlcClient(container, reference_packages=_PACKAGES, python="3")


def test_a_script_runs_as_in_a_database(client, bucketfs_server):
    """The buckets are at their literal path, for another user, without a network."""
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
    """With `reach`, a script reaches the server under its address on this machine."""
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


@pytest.mark.parametrize("code", ["while True: pass", "import os; os._exit(3)"])
def test_nothing_of_a_run_is_left(client, temporary, code):
    """No process and no file is left, if a script takes too long or kills its process."""
    with (
        UdfRunner(client, timeout_s=2) as runner,
        pytest.raises((UdfTimeoutError, UdfClientDiedError)),
    ):
        runner.create(_SCRIPT + code).run([(1,)])
    assert psutil.wait_procs(_in_containers(temporary), timeout=10)[1] == []
    assert list(temporary.iterdir()) == []


def test_a_killed_runner_leaves_no_client(container, temporary):
    """The client ends by itself once its socket is gone, which the runner's guard removes."""
    source = (
        "from mlflow_bucketfs_testing import SlcClient, UdfRunner\n"
        f"client = SlcClient({container!r}, reference_packages={str(_PACKAGES)!r}, python='3')\n"
        "with UdfRunner(client) as runner:\n"
        f"    runner.create({_SCRIPT!r} + 'import time; time.sleep(600)').run([(1,)])\n"
    )
    with subprocess.Popen([sys.executable, "-c", source]) as process:
        while not (clients := _in_containers(temporary)):
            assert process.poll() is None
        process.kill()
    assert psutil.wait_procs(clients, timeout=60)[1] == []
    assert not [path for path in temporary.rglob("*") if path.is_socket()]


@pytest.mark.usefixtures("container")
def test_a_container_without_a_client_is_refused():
    """The error says what a container must be built on."""
    with (
        UdfRunner("slc:/") as runner,
        pytest.raises(UdfClientError, match=r"no UDF client /exaudf/exaudfclient: build it on"),
    ):
        runner.create(_SCRIPT + "return ''").run([(1,)])


def test_a_missing_container_is_named(tmp_path):
    """The error says which file is not there."""
    with (
        UdfRunner(f"slc:{tmp_path}/none.tar.gz") as runner,
        pytest.raises(UdfClientError, match=r"no exported container .*/none\.tar\.gz"),
    ):
        runner.create(_SCRIPT + "return ''").run([(1,)])


def _in_containers(temporary):
    """Return the processes of containers that see a folder of a directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            mounted = Path(f"/proc/{process.pid}/mountinfo").read_text()
            found += [process] * (f"{temporary.name}/" in mounted)
    return found
