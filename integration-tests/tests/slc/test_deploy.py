"""``exaslct deploy`` into a BucketFS, as a user deploys to a database."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from importlib.metadata import version

import pytest
from mlflow_bucketfs_testing import BucketConfig, factories
from slc_build import commands, paths

# A separate server, because the unpacked container takes a gigabyte
slc_bucketfs_server = factories.bucketfs_server(buckets=[BucketConfig("default")], scope="module")


@pytest.fixture(scope="module")
def exaslct() -> str:
    """Return the path of the command exaslct."""
    found = shutil.which("exaslct", path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.skip("exaslct is not installed: uv run --group slc pytest")
    return found


def test_exaslct_deploys_into_bucketfs(exaslct, exported, slc_bucketfs_server, monkeypatch):
    """The container is uploaded over HTTP and unpacked on the mount; the SQL is printed."""
    if not paths.FLAVOR_PREPARED.is_dir():
        pytest.skip(f"{paths.FLAVOR_PREPARED} is missing: uv run nox -s slc:export")
    commands.choose_engine()
    bucket = slc_bucketfs_server.buckets[0]
    monkeypatch.setenv("BUCKETFS_PASSWORD", bucket.write_password)
    mounted = slc_bucketfs_server.mount_root / "bfsdefault" / "default" / "container"
    host, port = slc_bucketfs_server.url.removeprefix("http://").rsplit(":", 1)
    build = version(paths.PACKAGE)
    done = subprocess.run(
        [
            *(exaslct, "deploy", "--flavor-path", str(paths.FLAVOR_PREPARED)),
            *("--output-directory", str(paths.EXASLCT_OUTPUT), "--build-name", build),
            *("--source-docker-repository-name", "localhost/slc-source"),
            *("--target-docker-repository-name", "localhost/slc"),
            *("--bucketfs-host", host, "--bucketfs-port", port, "--bucketfs-user", "w"),
            *("--bucketfs-name", "bfsdefault", "--bucket", "default"),
            *("--path-in-bucket", "container"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=exported,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    name = f"{paths.FLAVOR}-release-{build}"
    assert "ALTER SESSION SET SCRIPT_LANGUAGES=" in done.stdout
    assert f"bfsdefault/default/container/{name}" in done.stdout
    slc_bucketfs_server.sync_mount()  # an archive is unpacked after its upload was answered
    packages = mounted / name / paths.LISTS_IN_CONTAINER / "packages.json"
    assert packages.read_bytes() == (exported / "packages.json").read_bytes()
    assert (mounted / name / "exasol-manifest.json").is_file()
