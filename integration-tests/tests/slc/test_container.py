"""The exported container: complete, isolated, described."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest
from mlflow_bucketfs_testing import SlcCommandError
from packaging.utils import canonicalize_name
from slc_build.paths import OWN_PACKAGES
from slc_build.wheels import pinned_packages

MEGABYTE = 1_000_000


def test_packages_can_be_imported(slc_container):
    """A Python without `site` imports MLflow, numpy, pandas, scikit-learn and our packages."""
    source = (
        "import mlflow, numpy, pandas, sklearn, mlflow_bucketfs_core, mlflow_bucketfs_plugin\n"
        "print(numpy.__version__)"
    )
    assert slc_container.run_python(source).stdout == "1.26.4\n"


@pytest.mark.parametrize("scheme", ["exa+bfs", "exa+bfss", "exabfs", "exabfss"])
def test_the_schemes_are_registered_without_site(slc_container, scheme):
    """MLflow finds the plugin's entry points on the fixed path of a UDF."""
    source = (
        "import sys\n"
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository\n"
        "print(type(get_artifact_repository(sys.argv[1])).__module__, 'site' in sys.modules)"
    )
    done = slc_container.run_python(source, f"{scheme}://host/bfsdefault/default/x")
    assert done.stdout == "mlflow_bucketfs_plugin.repository False\n"


def test_the_container_is_isolated(slc_container):
    """A command has no network and user 500, and can write only to /tmp."""
    source = (
        "import os, socket\n"
        "print([name for _, name in socket.if_nameindex()], os.getuid(), os.getgid())\n"
        "for folder in ('/', '/buckets', '/usr/local', '/tmp'):\n"
        "    try:\n"
        "        open(folder + '/probe', 'w').close()\n"
        "    except OSError as error:\n"
        "        print(folder, error.strerror)\n"
    )
    assert slc_container.run_python(source).stdout.splitlines() == [
        "['lo'] 500 500",
        "/ Read-only file system",
        "/buckets Read-only file system",
        "/usr/local Read-only file system",
    ]


def test_an_address_of_this_machine_is_reached(slc_container, bucketfs_server):
    """With `reach`, a server of this machine is reached at its address, and no other server."""
    bucketfs_server.put("reached.txt", b"hello")
    with socket.create_server(("127.0.0.1", 0)) as other:
        source = (
            "import socket, sys, urllib.request\n"
            "print(urllib.request.urlopen(sys.argv[1], timeout=30).read())\n"
            "print([name for _, name in socket.if_nameindex()])\n"
            "print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[2]))) != 0)\n"
            "sys.exit(3)"
        )
        url = f"{bucketfs_server.url}/default/reached.txt"
        arguments = (url, str(other.getsockname()[1]))
        reach = [bucketfs_server.url.removeprefix("http://")]
        done = slc_container.run_python(source, *arguments, reach=reach, check=False)
    assert done.stdout.splitlines() == ["b'hello'", "['lo']", "True"]
    assert done.returncode == 3


def test_a_failing_command_has_status_and_output(slc_container):
    """The error has the exit status and the output of the command."""
    with pytest.raises(SlcCommandError, match="ZeroDivisionError") as caught:
        slc_container.run_python("print('before'); 1 / 0")
    assert caught.value.exit_code == 1
    assert caught.value.stdout == "before\n"


def test_a_command_that_hangs_is_ended(slc_container):
    """After a timeout, not only Docker's client ends, but also the container."""
    with pytest.raises(SlcCommandError, match="more than 3 s"):
        slc_container.run(["sleep", "1000"], timeout_s=3)
    running = subprocess.run(
        ["docker", "ps", "--quiet", "--filter", f"ancestor={slc_container.image}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert running.stdout == ""


def test_the_packages_fit_together(slc_container):
    """`pip check` finds no missing package and no wrong version."""
    done = slc_container.run(["python3.12", "-m", "pip", "check"])
    assert "No broken requirements found" in done.stdout


def test_the_container_has_the_versions_of_the_lock(installed):
    """Each package of uv.lock for Python 3.12 is installed in its exact version."""
    pinned = {package.name: package.version for package in pinned_packages()}
    assert {name: installed[name] for name in pinned} == pinned
    assert pinned["numpy"] == "1.26.4"
    assert set(OWN_PACKAGES) <= set(installed)


def test_nothing_for_servers_and_tests_is_in_it(installed):
    """Neither the full mlflow nor a test tool is installed."""
    unwanted = {"mlflow", "mlflow-bucketfs-testing", "pytest"}
    assert unwanted.isdisjoint(installed)


def test_the_lists_are_correct(slc_container, exported, installed):
    """packages.json and constraints.txt have the packages that pip lists in the container."""
    found = slc_container.run(["python3.12", "-m", "pip", "list", "--format=json"]).stdout
    listed = {canonicalize_name(p["name"]): p["version"] for p in json.loads(found)}
    assert listed == installed
    constraints = (exported / "constraints.txt").read_text(encoding="utf-8").split()
    tools = {"pip", "setuptools", "wheel"}
    assert constraints == [f"{n}=={v}" for n, v in installed.items() if n not in tools]


def test_the_checksum_file_is_accepted(exported, slc_archive):
    """`sha256sum --check` accepts the exported file, in any directory."""
    command = ["sha256sum", "--check", f"{slc_archive.name}.sha256"]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
    assert done.stdout == f"{slc_archive.name}: OK\n"


def test_the_size_is_within_its_budget(slc_archive, build_info):
    """On the stand-in base the file has at most 330 MB."""
    if build_info["base_image"]["origin"] == "pulled":
        pytest.skip("the official base image is larger: its budget is Exasol's")
    assert slc_archive.stat().st_size <= 330 * MEGABYTE
