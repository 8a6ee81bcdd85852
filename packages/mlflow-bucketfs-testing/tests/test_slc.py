"""The classes and fixtures for script-language containers without Docker.

``integration-tests/tests/slc`` tests them with Docker and a real container.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
from mlflow_bucketfs_testing import (
    SlcBuilder,
    SlcCommandError,
    SlcContainer,
    SlcError,
    SlcUnavailableError,
    slc_reach,
)
from mlflow_bucketfs_testing.errors import Secret

pytest_plugins = ["pytester"]

NO_ENGINE = "unix:///nowhere/docker.sock"


@pytest.fixture
def archive(tmp_path):
    """An empty file in place of a container."""
    file = tmp_path / "slc.tar.gz"
    file.write_bytes(b"")
    return file


def test_importing_costs_nothing():
    """Constructing the classes imports neither exaslct nor Docker's client, and runs nothing."""
    source = (
        "import sys, mlflow_bucketfs_testing as t\n"
        "t.SlcBuilder('flavor'), t.SlcContainer('x.tar.gz')\n"
        "print({'luigi', 'docker', 'exasol.slc'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_flavors_path_is_absolute(tmp_path, monkeypatch):
    """The flavor's path, a key of exaslct's result, is absolute."""
    monkeypatch.chdir(tmp_path)
    assert SlcBuilder("flavor").flavor_path == tmp_path / "flavor"


def test_a_missing_file_is_named(tmp_path):
    """The error contains the path of the missing container."""
    with pytest.raises(SlcUnavailableError, match=r"no exported container .*none\.tar\.gz"):
        SlcContainer(tmp_path / "none.tar.gz").check()


def test_a_missing_command_is_named(archive, tmp_path, monkeypatch):
    """The error reports that docker is not on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlcUnavailableError, match="docker is not on the path"):
        SlcContainer(archive).check()


def test_a_missing_engine_is_named(archive, tmp_path, monkeypatch):
    """The error contains the address at which no engine answers."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    with pytest.raises(SlcUnavailableError, match=f"no Docker engine answers at {NO_ENGINE}"):
        SlcContainer(archive).run(["true"])


def test_passwords_of_a_command_are_not_printed(archive, tmp_path, monkeypatch):
    """Docker gets the password; neither its command line nor pytest's output contains it."""
    program, calls = tmp_path / "docker", tmp_path / "calls"
    program.write_text(
        f"#!/bin/sh\necho $* >> {calls}\nenv >> {calls}.env\necho 1\ntest $1 != create\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SlcError) as caught:
        SlcContainer(archive).run(
            ["true"],
            env={"EXA_BUCKETFS_PASSWORD": Secret("the-password"), "PATH": "/inside"},
        )
    assert "--env=HOME=/tmp " in calls.read_text()
    assert "--env=EXA_BUCKETFS_PASSWORD --env=PATH=/inside " in calls.read_text()
    assert "the-password" not in calls.read_text()
    passed = (tmp_path / "calls.env").read_text().splitlines()
    assert "EXA_BUCKETFS_PASSWORD=the-password" in passed
    assert f"HOME={tmp_path}" in passed
    shown = [repr(entry.frame.f_locals) for entry in caught.traceback[1:]]
    assert "the-password" not in "".join(shown)


def test_without_a_container_the_fixture_skips(pytester):
    """Without a configured container, the fixture skips and names the option."""
    pytester.makepyfile("def test_it(slc_container): ...")
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no container is configured: use --mlflow-bucketfs-slc-archive*"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_configured_container_must_exist(pytester, way):
    """A missing container of the option or the ini value is an error, not a skip."""
    pytester.makepyfile("def test_it(slc_container): ...")
    options = ["--mlflow-bucketfs-slc-archive", "none.tar.gz"]
    if way == "ini":
        options = ["-o", "mlflow_bucketfs_slc_archive=none.tar.gz"]
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no exported container */none.tar.gz"])


def test_a_project_overrides_the_container(pytester):
    """An overridden `slc_archive` needs no option; a missing file then skips."""
    pytester.makeconftest(
        "import pathlib, pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def slc_archive():\n"
        "    return pathlib.Path('build/slc.tar.gz')\n"
    )
    pytester.makepyfile("def test_it(slc_container): ...")
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*there is no exported container */build/slc.tar.gz"])


def test_an_address_is_reached_through_a_socket(bucketfs_server):
    """Concurrent requests through the socket are complete in both directions."""
    bucketfs_server.requests.clear()
    port = bucketfs_server.port
    source = (
        "import sys, urllib.request\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "content = bytes(range(256)) * 20_000\n"
        "def both_ways(number):\n"
        "    url = f'http://{sys.argv[1]}/default/{number}'\n"
        "    put = urllib.request.Request(url, content, method='PUT')\n"
        "    put.add_header('Authorization', 'Basic dzp3cml0ZQ==')\n"
        "    urllib.request.urlopen(put, timeout=60).close()\n"
        "    with urllib.request.urlopen(url, timeout=60) as response:\n"
        "        return response.read() == content\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    sys.exit(7 if all(pool.map(both_ways, range(16))) else 1)\n"
    )
    # another loopback address, because this machine, unlike a container, uses the first one
    there, here = f"127.0.0.1:{port}", f"127.0.0.2:{port}"
    with slc_reach.reachable([there]) as folder:
        script = folder / "reach.py"
        route = f"{here}={folder}/0"
        command = [sys.executable, "-I", "-S", script, route, "--", sys.executable, "-c", source]
        assert subprocess.run([*command, here], check=False, timeout=120).returncode == 7
    assert bucketfs_server.requests.count(method="PUT") == 16
    assert not folder.exists()


@pytest.mark.parametrize(
    "address",
    ["localhost:80", "10.0.0.1:80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:65536"],
)
def test_only_loopback_addresses_can_be_reached(archive, address):
    """Addresses other than loopback with a port are refused."""
    with pytest.raises(ValueError, match=r"not a loopback address: use 127\.0\.0\.1:PORT"):
        SlcContainer(archive).run(["true"], reach=[address])


@pytest.fixture
def unpacked(container_python, tmp_path):
    """An unpacked container that is this machine's root directory, which root can run."""
    del container_python  # requested because it may skip
    buckets = tmp_path / "buckets"
    (buckets / "bfsdefault").mkdir(parents=True)
    (buckets / "bfsdefault" / "model.txt").write_text("42")
    return SlcContainer("/", buckets=buckets)


def test_a_directory_runs_isolated_without_docker(unpacked):
    """The command has another user, no capabilities, no network, and a read-only file system."""
    source = (
        "import os, socket\n"
        "print([name for _, name in socket.if_nameindex()], os.getuid(), os.getgroups())\n"
        "print(os.getpid(), sorted(os.environ))\n"
        "print(open('/buckets/bfsdefault/model.txt').read(), os.listdir('/tmp'))\n"
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))\n"
        "print([int(status[name], 16) for name in ('CapEff', 'CapBnd', 'NoNewPrivs')])\n"
        "for folder in ('/', '/buckets', '/usr', '/tmp'):\n"
        "    try:\n"
        "        open(folder + '/probe', 'w').close()\n"
        "    except OSError as error:\n"
        "        print(folder, error.strerror)\n"
    )
    done = unpacked.run(["python3", "-c", source], env={"SECRET": Secret("x")})
    assert done.stdout.splitlines() == [
        "['lo'] 500 []",
        "1 ['HOME', 'LANG', 'LC_ALL', 'PATH', 'SECRET']",
        "42 []",
        "[0, 0, 1]",
        "/ Read-only file system",
        "/buckets Read-only file system",
        "/usr Read-only file system",
    ]


@pytest.mark.usefixtures("unpacked")
def test_a_directory_reaches_an_address_of_this_machine(bucketfs_server):
    """A command in a directory reaches an address of ``reach``, as with Docker."""
    bucketfs_server.put("reached.txt", b"hello")
    source = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read())"
    done = SlcContainer("/", python="3").run(
        ["python3", "-c", source, f"{bucketfs_server.url}/default/reached.txt"],
        reach=[bucketfs_server.url.removeprefix("http://")],
    )
    assert done.stdout == "b'hello'\n"


def test_nothing_of_a_directorys_command_is_left(unpacked, wait_until):
    """A command that times out is killed with all its processes."""
    sleep = ["sleep", f"4242.{uuid.uuid4().int % 10**9}"]  # unique on this machine
    command = ["sh", "-c", f"setsid {' '.join(sleep)} & {' '.join(sleep)}"]

    def sleeping():
        return [process for process in psutil.process_iter() if _command_line(process) == sleep]

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(unpacked.run, command, timeout_s=5)
        wait_until(lambda: run.done() or len(sleeping()) == 2)
        begun = sleeping()
        with pytest.raises(SlcCommandError, match="more than 5 s"):
            run.result()
    assert len(begun) == 2
    assert psutil.wait_procs(begun, timeout=10)[1] == []


def test_a_missing_command_in_a_directory_is_named(unpacked):
    """A missing command has a shell's exit status, and the error names it."""
    with pytest.raises(SlcCommandError, match="no-such-program: No such file") as caught:
        unpacked.run(["no-such-program"])
    assert caught.value.exit_code == 127


def test_a_directory_needs_root(tmp_path, monkeypatch):
    """The error for other users contains the remedy."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SlcUnavailableError, match=r"only root .* use the exported \.tar\.gz"):
        SlcContainer(tmp_path).check()


def _command_line(process):
    with suppress(psutil.Error):
        return process.cmdline()
    return []
