"""Tests of ``download_artifacts`` and ``_download_file`` over HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

TREE = {"MLmodel": b"m", "d/x": b"1", "d/e/y": b"", "d/.hidden": b"2"}


@pytest.fixture
def tree(server):
    """Store a small tree, with siblings that must not be taken for parts of it."""
    server.put_many((f"root/{name}", data) for name, data in TREE.items())
    server.put_many([("root/dd/x", b"-"), ("root/d.txt", b"-"), ("rooted/x", b"-")])
    return TREE


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("path", ["d", "d/", "/d"])
def test_folder(server, repo, local, path):
    """A folder is downloaded without siblings, with one listing and one GET per file."""
    target = local.directory()
    assert repo.download_artifacts(path, str(target)) == f"{target}/d"
    assert local.read(target) == {"d/x": b"1", "d/e/y": b"", "d/.hidden": b"2"}
    assert (server.requests.listings, len(server.requests)) == (1, 4)


@pytest.mark.parametrize("path", ["", None, "/"], ids=repr)
def test_root(server, repo, local, tree, path):
    """The root is downloaded into the target directory itself."""
    server.delete("root/dd/x")
    server.delete("root/d.txt")
    target = local.directory()
    assert repo.download_artifacts(path, str(target)) == str(target)
    assert local.read(target) == tree
    assert server.requests.listings == 1


@pytest.mark.usefixtures("tree")
def test_file(server, repo, local):
    """A file is downloaded to its path below the target, with one listing and one GET."""
    target = local.directory()
    assert repo.download_artifacts("d/x", str(target)) == f"{target}/d/x"
    assert local.read(target) == {"d/x": b"1"}
    assert (server.requests.listings, len(server.requests)) == (1, 2)


def test_new_directory_per_call(repo, tree, temporary_directory):
    """Without a target, each call creates a new temporary directory."""
    first, second = (Path(repo.download_artifacts("d/x")) for _ in range(2))
    assert first != second
    assert first.read_bytes() == second.read_bytes() == tree["d/x"]
    assert temporary_directory in first.parents


@pytest.mark.usefixtures("tree")
def test_relative_target(repo, local, monkeypatch):
    """A relative target is relative to the working directory, and returned as absolute."""
    target = local.directory()
    monkeypatch.chdir(target.parent)
    assert repo.download_artifacts("d/x", "down") == f"{target}/d/x"
    assert (target / "d" / "x").is_file()


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("name", "code"), [("missing", "RESOURCE_DOES_NOT_EXIST"), ("f", "INVALID_PARAMETER_VALUE")]
)
def test_target_is_no_directory(server, repo, local, name, code):
    """A target that is missing or a file is refused before anything is sent."""
    target = local.write({"f": b"1"}) / name
    with pytest.raises(MlflowException, match=str(target)) as caught:
        repo.download_artifacts("d", str(target))
    assert caught.value.error_code == code
    assert server.requests.connections == 0


def test_empty_root(repo, local):
    """The download of an empty root is not an error."""
    target = local.directory()
    assert repo.download_artifacts("", str(target)) == str(target)
    assert local.read(target) == {}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("path", ["missing", "d/missing", "d/x/y", "D", "MLmodel/x"])
def test_missing_leaves_nothing(repo, local, temporary_directory, path):
    """A missing artifact is RESOURCE_DOES_NOT_EXIST, and leaves neither file nor directory."""
    target = local.directory()
    for destination in (str(target), None):
        with pytest.raises(MlflowException, match=f"no artifact at .*root/{path}'") as caught:
            repo.download_artifacts(path, destination)
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert list(target.iterdir()) == list(temporary_directory.iterdir()) == []


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("path", ["missing", "d", "d/x/y"])
def test_missing_single_file_leaves_nothing(repo, local, path):
    """The same is true for MLflow's internal download of one file, also if it gets a folder."""
    target = local.directory()
    with pytest.raises(MlflowException) as caught:
        repo._download_file(path, target / "x")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("as_path", [str, Path], ids=["str", "Path"])
def test_single_file(server, repo, local, tree, as_path):
    """MLflow's internal download of one file accepts str and Path, and sends one GET."""
    target = local.directory() / "renamed"
    repo._download_file("d/x", as_path(target))
    assert target.read_bytes() == tree["d/x"]
    assert (server.requests.listings, len(server.requests)) == (0, 1)


def test_truncated_download_leaves_the_older_file(server, repo, local):
    """A truncated download leaves no partial file, and does not change the older file."""
    server.put("root/f", b"new content")
    server.inject(Fault.truncate(3, method="GET", key="root/f", times=None))
    target = local.write({"f": b"old"})
    with pytest.raises(MlflowException, match="before all announced bytes") as caught:
        repo.download_artifacts("f", str(target))
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert local.read(target) == {"f": b"old"}
    assert [path.name for path in target.iterdir()] == ["f"]


def test_failed_download_leaves_no_temporary_directory(server, repo, temporary_directory, tree):
    """A failed download leaves no temporary directory."""
    server.inject(Fault.status(403, method="GET", key="root/d/x", times=None))
    with pytest.raises(MlflowException) as caught:
        repo.download_artifacts("d")
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert server.requests.count(method="GET", status=200) == len(tree) - 1
    assert list(temporary_directory.iterdir()) == []


def test_one_bad_file_does_not_stop_the_others(server, repo, local):
    """The other files are downloaded, and the error names only the one that failed."""
    server.put_many((f"root/{number}", b"1") for number in range(30))
    server.inject(Fault.status(403, method="GET", key="root/7", times=None))
    target = local.directory()
    with pytest.raises(MlflowException, match=r"1 failure.*\n- 7: .*\b403\b"):
        repo.download_artifacts("", str(target))
    assert sorted(local.read(target)) == sorted(str(n) for n in range(30) if n != 7)


def test_transient_failures_are_retried(server, repo, local):
    """Lost connections, truncated bodies and busy responses are retried."""
    files = {f"{number}": b"content" * 100 for number in range(12)}
    server.put_many((f"root/{name}", data) for name, data in files.items())
    server.inject(
        Fault.truncate(2, method="GET", key=""),
        Fault.status(503, method="GET", key="root/*"),
        Fault.status(429, method="GET", key="root/*"),
        Fault.reset_before_body(method="GET", key="root/*"),
        Fault.reset_in_body(10, method="GET", key="root/*"),
        Fault.truncate(10, method="GET", key="root/*"),
        Fault.truncate(10, framing="chunked", method="GET", key="root/*"),
    )
    target = local.directory()
    repo.download_artifacts("", str(target))
    assert local.read(target) == files
    assert len(server.faults) == 0


def test_many_small_files_cost_one_request_each(server, repo, local):
    """300 files need one listing and one GET each, on few connections."""
    files = {f"d{number % 7}/{number}": b"x" * number for number in range(300)}
    server.put_many((f"root/m/{name}", data) for name, data in files.items())
    target = local.directory()
    repo.download_artifacts("m", str(target))
    assert local.read(target / "m") == files
    assert (server.requests.listings, len(server.requests)) == (1, 301)
    assert server.requests.connections <= 20


def test_file_and_folder_of_one_name(server, repo, local, caplog):
    """If BucketFS holds d and d/x, the folder is downloaded; the file is logged and readable."""
    server.put_many([("root/m/d/x", b"1"), ("root/m/d", b"2")])
    target = local.directory()
    repo.download_artifacts("m", str(target))
    assert local.read(target) == {"m/d/x": b"1"}
    assert "folders have the same names: m/d\n" in caplog.text
    assert Path(repo.download_artifacts("m/d"), "x").read_bytes() == b"1"
    repo._download_file("m/d", target / "file")
    assert (target / "file").read_bytes() == b"2"


@pytest.mark.parametrize("path", ["..", "d/../../rooted", "d/./x"])
def test_path_out_of_the_root_is_refused(server, repo, path):
    """A path with .. is refused before anything is sent."""
    for read in (repo.download_artifacts, repo.get_local_path):
        with pytest.raises(MlflowException) as caught:
            read(path)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == 0


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "obstacle", [pytest.param("d", id="file at folder"), pytest.param("d/x/z", id="folder at file")]
)
def test_obstacle_in_the_target(repo, local, obstacle):
    """A file or folder in the way in the target is an error, and is not changed."""
    target = local.write({obstacle: b"mine"})
    with pytest.raises((OSError, MlflowException), match=f"{target}/d"):
        repo.download_artifacts("d", str(target))
    assert (target / obstacle).read_bytes() == b"mine"


def test_link_in_the_target_is_replaced(repo, local, tree):
    """A link in the target is replaced; the file that it leads to is not changed."""
    target = local.write({"precious": b"mine"})
    (target / "d").mkdir()
    (target / "d" / "x").symlink_to(target / "precious")
    repo.download_artifacts("d", str(target))
    assert (target / "precious").read_bytes() == b"mine"
    assert (target / "d" / "x").read_bytes() == tree["d/x"]


@pytest.mark.parametrize(
    "key",
    [
        "root/d/../../../escaped",
        "root/d/..",
        "root/d/./x",
        "root/d/tab\tx",
        b"root/d/\xff".decode("utf-8", "surrogateescape"),
    ],
    ids=repr,
)
def test_hostile_listing(hostile_server, local, key):
    """If a listing has a key that leads out of the folder, nothing is written."""
    hostile_server.keys = ["root/d/harmless", key]
    target = local.directory()
    repo = BucketFSArtifactRepository(hostile_server.uri)
    with pytest.raises(MlflowException, match=re.escape(repr(key.removeprefix("root/")))) as caught:
        repo.download_artifacts("d", str(target))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert local.read(target.parent) == {}


def test_no_local_path_without_a_mount(server, repo):
    """Without a mount, there is no local path, and no request is sent."""
    assert repo.get_local_path("f") is None
    assert server.requests.connections == 0
