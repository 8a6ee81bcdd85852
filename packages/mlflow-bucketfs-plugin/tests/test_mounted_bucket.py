"""Tests of reading from a mounted bucket, without HTTP, password or copies."""

from __future__ import annotations

import io
import logging
import os
import sys
import tarfile
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_core import BucketFSUri
from mlflow_bucketfs_plugin.mount import MountedArtifact
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

MODEL = f"1/models/m-{'0a' * 16}/artifacts"
FILES = {"MLmodel": b"flavors: {}\n", "model.pkl": b"pickle", "code/x.py": b"", ".hidden": b"h"}


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize("path", ["plots", "plots/", "plots/a.png", f"{MODEL}/model.pkl", "1", ""])
def test_mounted_path_itself(mounted, bucket_on_mount, path):
    """The local path of a file, or of a folder without MLmodel, is its mounted path."""
    expected = str(bucket_on_mount / "root" / path.rstrip("/")).rstrip("/")
    assert mounted.download_artifacts(path) == expected
    assert mounted.get_local_path(path) == expected


@pytest.mark.usefixtures("no_requests")
def test_model_becomes_links_around_a_real_mlmodel(mounted, bucket_on_mount, temporary_directory):
    """A model becomes a writable directory of links, and only MLmodel is copied."""
    directory = Path(mounted.download_artifacts(MODEL))
    assert temporary_directory in directory.parents
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == FILES
    assert [name for name, path in files.items() if not path.is_symlink()] == ["MLmodel"]
    assert files["model.pkl"].readlink() == bucket_on_mount / "root" / MODEL / "model.pkl"
    (directory / "registered_model_meta").write_text("x")
    assert not (bucket_on_mount / "root" / MODEL / "registered_model_meta").exists()
    assert mounted.get_local_path(MODEL) == str(bucket_on_mount / "root" / MODEL)


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/", "plots", "notes.txt", f"{MODEL}/MLmodel", ""])
@pytest.mark.parametrize("temporary", [True, False], ids=["temporary", "elsewhere"])
def test_target(mounted, local, temporary_directory, path, temporary):
    """Files are copied into any target, and existing links in it are replaced."""
    target = temporary_directory / "runs" if temporary else local.root / "mine"
    other = local.write({"other": b"mine"}, "elsewhere") / "other"
    for name in ("plots/a.png", "notes.txt", f"{MODEL}/MLmodel"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(other)
    for _ in range(2):
        assert mounted.download_artifacts(path, f"{target}/") == str(target / path).rstrip("/")
    files = [p for p in (target / path).rglob("*") if p.is_file()] or [target / path]
    assert not [p for p in files if p.is_symlink()]
    contents = {p.name: p.read_bytes() for p in files}
    everything = {"a.png": b"12345", "notes.txt": b"n"}
    everything |= {name.rpartition("/")[2]: data for name, data in FILES.items()}
    assert contents.items() <= everything.items()
    assert other.read_bytes() == b"mine"


@pytest.mark.usefixtures("no_requests", "temporary_directory")
def test_odd_targets(mounted, local, monkeypatch):
    """An empty target counts as none; a relative one is returned as absolute."""
    monkeypatch.chdir(local.root)
    assert Path(mounted.download_artifacts(MODEL, "")).is_relative_to(local.root / "tmp")
    local.directory("mine")
    assert mounted.download_artifacts("plots", "mine") == str(local.root / "mine" / "plots")
    assert sorted(p.name for p in local.root.iterdir()) == ["mine", "tmp"]


@pytest.mark.usefixtures("no_requests")
def test_listing_has_sizes(server, mounted):
    """A listing from the mount has the sizes of files."""
    server.put("root/empty", b"")
    listed = [(i.path, i.is_dir, i.file_size) for i in mounted.list_artifacts()]
    assert listed == [
        ("1", True, None),
        ("empty", False, 0),
        ("notes.txt", False, 1),
        ("plots", True, None),
    ]
    (info,) = mounted.list_artifacts("plots/")
    assert (info.path, info.file_size) == ("plots/a.png", 5)
    assert mounted.list_artifacts("notes.txt") == mounted.list_artifacts("missing/x") == []


@pytest.mark.usefixtures("no_requests")
def test_one_file(mounted, local):
    """MLflow's internal download of one file copies it, and replaces a link in the target."""
    target = local.write({"other": b"mine"}) / "link"
    target.symlink_to("other")
    mounted._download_file("notes.txt", target)
    assert local.read(target.parent) == {"other": b"mine", "link": b"n"}
    assert not target.is_symlink()


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize("path", ["missing", "plots/missing", "notes.txt/x"])
def test_missing(mounted, bucket_on_mount, local, path, temporary_directory):
    """A missing artifact is an error with the mounted path, a likely cause and a remedy."""
    for read in (
        mounted.download_artifacts,
        mounted.get_local_path,
        lambda path: mounted.download_artifacts(path, str(temporary_directory)),
        lambda path: mounted._download_file(path, local.root / "x"),
    ):
        with pytest.raises(MlflowException) as caught:
            read(path)
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert f"{bucket_on_mount}/root/{path} does not exist" in str(caught.value)
        assert "EXA_BUCKETFS_MOUNT_FALLBACK=http" in str(caught.value)
    assert not (local.root / "x").exists()
    assert list(temporary_directory.iterdir()) == []


@pytest.mark.usefixtures("no_requests")
def test_folder_is_no_file(mounted, local):
    """A folder in place of a file is RESOURCE_DOES_NOT_EXIST, as over HTTP."""
    with pytest.raises(MlflowException) as caught:
        mounted._download_file("plots", local.root / "x")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert not (local.root / "x").exists()


@pytest.mark.usefixtures("no_requests")
def test_model_without_mlmodel_is_not_there_yet(server, mounted):
    """A logged model without MLmodel counts as missing; its files do not."""
    server.delete(f"root/{MODEL}/MLmodel")
    with pytest.raises(MlflowException, match=f"{MODEL}/MLmodel does not exist") as caught:
        mounted.download_artifacts(MODEL)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert Path(mounted.download_artifacts(f"{MODEL}/model.pkl")).read_bytes() == b"pickle"


def archive(name, data):
    """Return a tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("visible", [False, True], ids=["unpacked only", "visible as well"])
def test_archive(make_server, monkeypatch, caplog, visible):
    """An archive, which BucketFS unpacks, is read over HTTP unless it is visible on the mount."""
    server = make_server(archive_visible_on_mount=visible)
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root))
    packed = archive("inner.txt", b"inner")
    server.put("root/d.tar.gz", packed)
    server.put("root/lone.gz", b"not unpacked")
    server.sync_mount()
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    with caplog.at_level(logging.INFO, "mlflow_bucketfs_plugin"):
        assert Path(repo.download_artifacts("d.tar.gz")).read_bytes() == packed
    assert ("is an archive" in caplog.text) is not visible
    assert len(server.requests) == (0 if visible else 2)
    server.requests.clear()
    assert Path(repo.download_artifacts("d"), "inner.txt").read_bytes() == b"inner"
    assert Path(repo.download_artifacts("lone.gz")).read_bytes() == b"not unpacked"
    assert len(server.requests) == 0
    with pytest.raises(MlflowException) as caught:
        repo.download_artifacts("missing.zip")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert server.requests.listings == 1


@pytest.mark.usefixtures("no_requests")
def test_dangling_link(mounted, bucket_on_mount, temporary_directory):
    """A dangling link is listed, and reading it is an error with its mounted path."""
    link = bucket_on_mount / "root" / "plots" / "broken"
    link.symlink_to("nowhere")
    assert [(i.path, i.is_dir, i.file_size) for i in mounted.list_artifacts("plots")] == [
        ("plots/a.png", False, 5),
        ("plots/broken", False, None),
    ]
    with pytest.raises(FileNotFoundError, match=str(link)):
        mounted.download_artifacts("plots", str(temporary_directory))
    with pytest.raises(MlflowException, match=str(link)) as caught:
        mounted.download_artifacts("plots/broken")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


UNREADABLE = """
import os, shutil, sys, tempfile
from pathlib import Path
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

root = Path(tempfile.mkdtemp())
root.chmod(0o755)
bucket = root / "s" / "b"
(bucket / "locked").mkdir(parents=True)
(bucket / "locked" / "f").touch()
(bucket / "model").mkdir()
(bucket / "model" / "MLmodel").write_text("flavors: {}\\n")
(bucket / "model" / "weights").touch()
os.environ["EXA_BUCKETFS_MOUNT_ROOT"] = str(root)
repo = BucketFSArtifactRepository("exa+bfs://127.0.0.1:1/s/b")
os.chdir("/")
repo.download_artifacts("model")
(bucket / "locked").chmod(0)
(bucket / "model" / "weights").chmod(0)
if os.geteuid() == 0:
    os.seteuid(65534)
target = tempfile.mkdtemp()
for use in (
    lambda: repo.list_artifacts("locked"),
    lambda: repo.download_artifacts("locked", target),
    lambda: repo.download_artifacts("locked/f"),
    lambda: repo.download_artifacts("model"),
    lambda: repo._download_file("model/weights", target + "/w"),
):
    try:
        print(use())
    except OSError as error:
        print(type(error).__name__, str(error).replace(str(bucket), "<bucket>"))
print(os.listdir(target + "/"))
os.seteuid(os.getuid())
(bucket / "locked").chmod(0o700)
shutil.rmtree(root)
shutil.rmtree(target)
"""


def test_unreadable(run_python):
    """An unreadable path is an error that names the mounted path and the reason."""
    lines = run_python(UNREADABLE).splitlines()
    refused = "PermissionError [Errno 13] Permission denied: '<bucket>/{}'"
    assert lines == [
        *(refused.format(name) for name in ("locked", "locked", "locked/f")),
        *(refused.format(name) for name in ("model/weights", "model/weights")),
        "[]",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_failed_read_names_what_was_read(tmp_path, server):
    """The error of a failed read names the mounted file, and no copy is left."""
    location = BucketFSUri.parse(server.uri())
    unreadable = Path("/proc", str(os.getpid()), "mem")  # opens, but reads fail
    artifact = MountedArtifact(location, unreadable, str(unreadable.parent))
    with pytest.raises(OSError, match="Input/output") as caught:
        artifact.copy_file(tmp_path / "copy")
    assert caught.value.filename == str(unreadable)
    assert list(tmp_path.iterdir()) == []
