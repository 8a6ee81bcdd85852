"""The mount: what a UDF would see below /buckets."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest
from mlflow_bucketfs_testing.server import BucketFSServer


@pytest.fixture
def mount(server):
    """The directory of the default bucket on the mount."""
    return server.mount_root / "bfsdefault" / "default"


def tar_bytes(files, mode="w:gz"):
    """A tar archive with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files):
    """A zip archive with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tree(directory):
    """All paths below a directory, with the bytes of files and None for directories."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def test_mount_follows_uploads_and_deletes(server, client, mount):
    """What a PUT answered is on the mount; a folder goes with its last file."""
    client.put("/default/d/e/x", b"1")
    assert tree(mount) == {"d": None, "d/e": None, "d/e/x": b"1"}
    client.put("/default/d/e/x", b"2")
    client.put("/default/d/y", b"3")
    assert tree(mount) == {"d": None, "d/e": None, "d/e/x": b"2", "d/y": b"3"}
    client.delete("/default/d/e/x")
    assert tree(mount) == {"d": None, "d/y": b"3"}
    client.delete("/default/d/y")
    assert tree(mount) == {}
    assert sorted(path.name for path in server.mount_root.glob("*/*")) == ["default", "private"]


def test_mount_is_built_from_what_is_there(tmp_path):
    """The mount shows objects that were written before anybody asked for it."""
    with BucketFSServer(service="other", data_dir=tmp_path) as server:
        server.put_many([("a/b", b"1"), ("m.zip", zip_bytes({"f": b"2"}))])
        root = server.mount_root
        server.sync_mount()
        assert tree(root / "other" / "default") == {"a": None, "a/b": b"1", "m": None, "m/f": b"2"}


def test_mount_takes_no_space(server, mount):
    """A file on the mount is the stored one."""
    server.put("k", b"1")
    assert (mount / "k").stat().st_nlink == 2


def test_replacing_is_atomic(server, client, mount):
    """Who has opened a file on the mount goes on reading it."""
    server.put("k", b"old")
    with (mount / "k").open("rb", buffering=0) as file:
        client.put("/default/k", b"new")
        assert file.read() == b"old"
    assert (mount / "k").read_bytes() == b"new"


def test_folder_hides_an_object_of_its_name(server, mount):
    """Where ``d`` and ``d/x`` exist, the folder shows; without ``d/x``, the file."""
    server.put("d", b"file")
    server.put("d/x", b"inner")
    assert tree(mount) == {"d": None, "d/x": b"inner"}
    server.put("d", b"file again")
    assert tree(mount) == {"d": None, "d/x": b"inner"}
    server.delete("d/x")
    assert tree(mount) == {"d": b"file again"}


def test_mount_can_lag(server, client, mount):
    """A paused mount shows the past until it is released."""
    server.put("old", b"1")
    server.put("both", b"1")
    server.mount_paused = True
    client.put("/default/new", b"2")
    client.put("/default/both", b"2")
    client.delete("/default/old")
    assert tree(mount) == {"old": b"1", "both": b"1"}
    server.mount_paused = False
    assert tree(mount) == {"new": b"2", "both": b"2"}


def test_sync_beats_pause(server, mount):
    """Syncing shows what waits and leaves the mount paused; a reset does not."""
    server.mount_paused = True
    server.put("k", b"1")
    server.sync_mount()
    server.put("k", b"2")
    assert tree(mount) == {"k": b"1"}
    assert server.mount_paused
    server.reset()
    assert tree(mount) == {}
    assert not server.mount_paused


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".tar", lambda files: tar_bytes(files, "w")),
        (".tar.gz", tar_bytes),
        (".tgz", tar_bytes),
        (".tar.bz2", lambda files: tar_bytes(files, "w:bz2")),
        (".zip", zip_bytes),
    ],
)
def test_archives_are_unpacked(server, client, mount, suffix, make):
    """An archive shows as a folder without its suffix; the listing has the archive only."""
    client.put(f"/default/m/model{suffix}", make({"a": b"1", "d/b": b"2"}))
    server.sync_mount()
    unpacked = {"m": None, "m/model": None, "m/model/a": b"1"}
    assert tree(mount) == {**unpacked, "m/model/d": None, "m/model/d/b": b"2"}
    assert server.keys() == [f"m/model{suffix}"]
    client.put(f"/default/m/model{suffix}", make({"a": b"3"}))
    server.sync_mount()
    assert tree(mount) == {**unpacked, "m/model/a": b"3"}
    client.delete(f"/default/m/model{suffix}")
    server.sync_mount()
    assert tree(mount) == {}


@pytest.mark.parametrize("key", ["x.gz", "x.jar", "X.ZIP", "x.TAR.GZ", "dir/.zip", "x.zipx"])
def test_other_files_are_not_unpacked(server, mount, key):
    """Only the known suffixes in lower case count, and not as a whole name."""
    data = zip_bytes({"a": b"1"})
    server.put(key, data)
    server.sync_mount()
    assert (mount / key).read_bytes() == data


@pytest.mark.parametrize("key", ["m.zip", "m.tar.gz", "m.tar", "m.tar.bz2"])
def test_broken_archives_are_ignored(server, mount, key):
    """A damaged archive is not unpacked, silently."""
    for data in (
        b"",
        b"nonsense",
        tar_bytes({"a": bytes(100_000)})[:-50],
        zip_bytes({"a": b""})[4:],
    ):
        server.put(key, data)
        server.sync_mount()
        assert tree(mount) == {}


def test_archive_may_show(connect):
    """A knob shows the archive beside its tree."""
    with BucketFSServer(archive_visible_on_mount=True) as server:
        archive = zip_bytes({"a": b"1"})
        connect(server).put("/default/m.zip", archive)
        root = server.mount_root / "bfsdefault" / "default"
        server.sync_mount()
        assert tree(root) == {"m.zip": archive, "m": None, "m/a": b"1"}


def test_members_cannot_escape(server, mount, tmp_path):
    """Paths and links that lead out of the tree are left out or stay inside, the rest comes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, link in [
            ("../up", None),
            (str(tmp_path / "outside"), None),
            ("absolute-link", str(tmp_path)),
            ("up-link", "../../.."),
            ("good-link", "good"),
            ("good", None),
        ]:
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    server.put("m.tar", buffer.getvalue())
    server.put("z.zip", zip_bytes({"../up": b"", "good": b""}))
    server.sync_mount()
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in (mount / "m").iterdir()} == {
        "good",
        "good-link",
        tmp_path.parts[1],
    }
    assert tree(mount / "z") == {"up": b"", "good": b""}
    assert {path.name for path in mount.iterdir()} == {"m", "z"}


def test_archive_and_files_share_a_folder(server, mount):
    """Objects below the archive's folder stay when the archive is replaced or deleted."""
    server.put("m/own", b"own")
    server.put("m.zip", zip_bytes({"a": b"1"}))
    server.sync_mount()
    assert tree(mount) == {"m": None, "m/own": b"own", "m/a": b"1"}
    server.delete("m.zip")
    server.sync_mount()
    assert tree(mount) == {"m": None, "m/own": b"own"}
    server.put("m.zip", zip_bytes({}))
    server.delete("m/own")
    server.put("m", b"file")
    server.delete("m.zip")
    server.sync_mount()
    assert tree(mount) == {"m": b"file"}


def test_archive_lags_too(server, client, mount):
    """A paused mount unpacks nothing; stopping does not wait for archives."""
    server.mount_paused = True
    client.put("/default/m.zip", zip_bytes({"a": b"1"}))
    assert tree(mount) == {}
    server.mount_paused = False
    server.sync_mount()
    assert (mount / "m" / "a").read_bytes() == b"1"
