"""The mount: the tree that a UDF sees below ``/buckets``."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

import pytest
from mlflow_bucketfs_testing.server import BucketFSServer


@pytest.fixture
def mount(server):
    """The directory of the default bucket on the mount."""
    return server.mount_root / "bfsdefault" / "default"


def tar_bytes(files, mode="w:gz"):
    """Return a tar archive with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files):
    """Return a zip archive with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tree(directory):
    """Return all paths below a directory, with the bytes of files and None for directories."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def test_mount_follows_uploads_and_deletes(server, client, mount):
    """Answered PUTs and DELETEs are on the mount; a folder is removed with its last file."""
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


def test_mount_contains_earlier_objects(tmp_path):
    """The mount contains objects that were stored before its first use."""
    with BucketFSServer(service="other", data_dir=tmp_path) as server:
        server.put_many([("a/b", b"1"), ("m.zip", zip_bytes({"f": b"2"}))])
        root = server.mount_root
        server.sync_mount()
        assert tree(root / "other" / "default") == {"a": None, "a/b": b"1", "m": None, "m/f": b"2"}


def test_mount_takes_no_space(server, mount):
    """A file on the mount is a hard link to the stored one."""
    server.put("k", b"1")
    assert (mount / "k").stat().st_nlink == 2


def test_the_mount_is_read_only(server, mount):
    """No file is writable, because that would change the object; folders are writable."""
    server.put_many([("d/k", b"1"), ("large", bytes(300_000)), ("m.zip", zip_bytes({"a": b"1"}))])
    server.sync_mount()
    files = [path for path in mount.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert not any(path.stat().st_mode & 0o222 for path in files)
    assert all(path.stat().st_mode & stat.S_IWUSR for path in mount.rglob("*") if path.is_dir())


def test_replacing_is_atomic(server, client, mount):
    """An open file on the mount keeps its content when the object is replaced."""
    server.put("k", b"old")
    with (mount / "k").open("rb", buffering=0) as file:
        client.put("/default/k", b"new")
        assert file.read() == b"old"
    assert (mount / "k").read_bytes() == b"new"


def test_folder_hides_an_object_of_its_name(server, mount):
    """If ``d`` and ``d/x`` exist, the folder is visible; without ``d/x``, the file is."""
    server.put("d", b"file")
    server.put("d/x", b"inner")
    assert tree(mount) == {"d": None, "d/x": b"inner"}
    server.put("d", b"file again")
    assert tree(mount) == {"d": None, "d/x": b"inner"}
    server.delete("d/x")
    assert tree(mount) == {"d": b"file again"}


def test_mount_can_be_paused(server, client, mount):
    """A paused mount does not change until the end of the pause."""
    server.put("old", b"1")
    server.put("both", b"1")
    server.mount_paused = True
    client.put("/default/new", b"2")
    client.put("/default/both", b"2")
    client.delete("/default/old")
    assert tree(mount) == {"old": b"1", "both": b"1"}
    server.mount_paused = False
    assert tree(mount) == {"new": b"2", "both": b"2"}


def test_sync_overrides_pause(server, mount):
    """`sync_mount` applies held-back changes and keeps the pause; `reset` ends it."""
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
        (".zip", zip_bytes),
    ],
)
def test_archives_are_unpacked(server, client, mount, suffix, make):
    """An archive is a folder without its suffix; the listing contains only the archive."""
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


@pytest.mark.parametrize(
    "key", ["x.gz", "x.jar", "X.ZIP", "x.TAR.GZ", "dir/.zip", "x.zipx", "x.tar.bz2"]
)
def test_other_files_are_not_unpacked(server, mount, key):
    """Files are unpacked only by known lower-case suffixes that are not the complete name."""
    data = zip_bytes({"a": b"1"})
    server.put(key, data)
    server.sync_mount()
    assert (mount / key).read_bytes() == data


@pytest.mark.parametrize("key", ["m.zip", "m.tar.gz", "m.tar"])
def test_broken_archives_are_ignored(server, mount, key):
    """A damaged archive is silently not unpacked."""
    for data in (
        b"",
        b"nonsense",
        tar_bytes({"a": bytes(100_000)})[:-50],
        zip_bytes({"a": b""})[4:],
    ):
        server.put(key, data)
        server.sync_mount()
        assert tree(mount) == {}


def test_archive_can_be_visible(connect):
    """With ``archive_visible_on_mount``, the archive is visible beside its tree."""
    with BucketFSServer(archive_visible_on_mount=True) as server:
        archive = zip_bytes({"a": b"1"})
        connect(server).put("/default/m.zip", archive)
        root = server.mount_root / "bfsdefault" / "default"
        server.sync_mount()
        assert tree(root) == {"m.zip": archive, "m": None, "m/a": b"1"}


def entries(*members):
    """Return a tar and a zip archive of members: name, content or target, mode with file type."""
    in_tar, in_zip = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=in_tar, mode="w") as tarred, zipfile.ZipFile(in_zip, "w") as zipped:
        for name, content, mode in members:
            member = tarfile.TarInfo(name)
            member.mode = stat.S_IMODE(mode)
            types = {LINK: tarfile.SYMTYPE, HARD_LINK: tarfile.LNKTYPE, FIFO: tarfile.FIFOTYPE}
            member.type = types.get(stat.S_IFMT(mode), tarfile.REGTYPE)
            if member.type == tarfile.REGTYPE:
                member.size = len(content)
            member.linkname = content
            tarred.addfile(member, io.BytesIO(content.encode()))
            if stat.S_IFMT(mode) != HARD_LINK:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16 or 0x20  # as on Windows
                zipped.writestr(info, content)
    return {"m.tar": in_tar.getvalue(), "m.zip": in_zip.getvalue()}


FILE, LINK, FIFO = stat.S_IFREG | 0o644, stat.S_IFLNK, stat.S_IFIFO
HARD_LINK = 0o150000  # a mode that Linux does not use
both_formats = pytest.mark.parametrize("key", ["m.tar", "m.zip"])


@both_formats
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("../up", None),
        ("d/../../up", None),
        ("absolute-link", "/etc"),
        ("up-link", ".."),
        ("d/up-link", "../.."),
        ("d/up-link", "../down/../.."),  # leads out if `down` is a link to the folder d
        pytest.param("long-link", "x/" * 2100, id="long-link"),
        ("empty-link", ""),
        ("pipe", FIFO),
        ("down/through-a-link", None),
        ("d", "in"),  # a link instead of a folder
    ],
)
def test_members_that_lead_out_are_skipped(  # noqa: PLR0917 -- a table of two dimensions
    server, mount, caplog, key, name, target
):
    """A member that could lead out of the tree is skipped and logged; the others are unpacked."""
    odd = (
        (name, "", FIFO)
        if target == FIFO
        else (name, target or "", FILE if target is None else LINK)
    )
    members = [("d/in", "1", FILE), ("down", "d", LINK), odd, ("/last", "2", FILE)]
    server.put(key, entries(*members)[key])
    server.sync_mount()
    links = {str(p.relative_to(mount)) for p in mount.rglob("*") if p.is_symlink()}
    assert links == {"m/down"}
    assert tree(mount) == {
        **dict.fromkeys(("m", "m/d", "m/down")),
        "m/d/in": b"1",
        "m/last": b"2",
    }
    assert [record.args[:2] for record in caplog.records] == [(key, name)]


@both_formats
def test_links_inside_the_tree_are_links(server, mount, caplog, key):
    """A link is kept if its target is in the tree, independent of the order of the members."""
    links = {"a": "b", "d/up": "../d/f", "b": "d/f", "to-folder": "d", "dangling": "none"}
    members = [(name, target, LINK) for name, target in links.items()]
    server.put(key, entries(*members, ("d/f", "1", FILE))[key])
    server.sync_mount()
    assert {name: str((mount / "m" / name).readlink()) for name in links} == links
    assert [(mount / "m" / name).read_bytes() for name in ("a", "d/up", "to-folder/f")] == [
        b"1"
    ] * 3
    assert not caplog.records


@both_formats
def test_modes_are_kept(server, mount, key):
    """Files stay executable; they are not writable and have no setuid bit."""
    modes = {"program": (0o755, 0o555), "secret": (0o200, 0o400), "setuid": (0o4777, 0o555)}
    members = [(name, "", stat.S_IFREG | mode) for name, (mode, _) in modes.items()]
    server.put(key, entries(*members, ("unknown", "", 0))[key])
    server.sync_mount()
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (mount / "m").iterdir()}
    assert found == {**{name: kept for name, (_, kept) in modes.items()}, "unknown": 0o444}


@both_formats
def test_the_last_member_of_a_name_is_kept(server, mount, key):
    """A later file replaces a link of its name and not the link's target, and vice versa."""
    members = [
        ("f", "1", FILE),
        ("x", "f", LINK),
        ("x", "2", FILE),
        ("y", "3", FILE),
        ("y", "f", LINK),
    ]
    with pytest.warns(UserWarning, match="Duplicate name"):  # from zipfile's writer
        server.put(key, entries(*members)[key])
    server.sync_mount()
    assert tree(mount / "m") == {"f": b"1", "x": b"2", "y": b"1"}


def test_hard_links_are_within_the_tree(server, mount, caplog, tmp_path):
    """A hard link is unpacked only if its target is a file that was unpacked before it."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"0")
    members = [("d/f", "1", FILE), ("good", "d/f", HARD_LINK), ("good", "good", HARD_LINK)]
    members += [("l", "d", LINK), ("link", "l/f", HARD_LINK), ("folder", "d", HARD_LINK)]
    members += [("none", "x", HARD_LINK), ("up", "../" * 20 + str(outside), HARD_LINK)]
    server.put("m.tar", entries(*members)["m.tar"])
    server.sync_mount()
    assert tree(mount / "m") == {"d": None, "d/f": b"1", "good": b"1", "l": None}
    assert [record.args[1] for record in caplog.records] == ["link", "folder", "none", "up"]
    assert outside.stat().st_nlink == 1


def cve_2025_4517(outside, tree_root):
    """Return the public exploit: links with a path that is too long to be resolved."""
    folder, path, steps = "d" * 247, "", "abcdefghijklmnop"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name, kind=tarfile.REGTYPE, target="", data=b""):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(data)
            archive.addfile(member, io.BytesIO(data))

        for step in steps:
            add(os.path.join(path, folder), tarfile.DIRTYPE)  # noqa: PTH118 -- may be empty
            add(os.path.join(path, step), tarfile.SYMTYPE, folder)  # noqa: PTH118
            path = os.path.join(path, folder)  # noqa: PTH118
        long = f"{'/'.join(steps)}/{'l' * 254}"
        add(long, tarfile.SYMTYPE, "../" * len(steps))
        add("escape", tarfile.SYMTYPE, f"{long}/{os.path.relpath(outside, tree_root)}")
        add("flaglink", tarfile.LNKTYPE, "escape/flag")
        add("flaglink", data=b"overwritten")
        add("escape/new", data=b"written")
    return buffer.getvalue()


def test_long_links_cannot_escape(server, client, mount, tmp_path):
    """CVE-2025-4517: neither the archive nor a later PUT or DELETE changes files outside."""
    (tmp_path / "flag").write_bytes(b"flag")
    data = cve_2025_4517(tmp_path, server.mount_root.parent / "staging" / "0")
    assert client.put("/default/m.tar", data).status == 200
    server.sync_mount()
    assert (mount / "m").is_dir()
    for path in ("/default/m/escape/later", "/default/m/escape/flag"):
        assert client.put(path, b"later").status == 200
    assert client.delete("/default/m/escape/flag").status == 200
    assert tree(tmp_path) == {"flag": b"flag"}
    assert (mount / "m" / "escape" / "later").read_bytes() == b"later"
    assert not (mount / "m" / "escape").is_symlink()


@both_formats
def test_links_of_an_archive_are_not_followed(server, client, mount, key):
    """An object at or below a link replaces the link; the link's target is not changed."""
    members = [("d/f", "1", FILE), *((name, "d", LINK) for name in ("at", "below", "deleted", "a"))]
    members.append(("nowhere", "none", LINK))
    server.put(key, entries(*members)[key])
    server.put("m/deleted/f", b"2")
    server.sync_mount()
    client.put("/default/m/at", b"3")
    client.put("/default/m/below/new", b"4")
    assert client.put("/default/m/nowhere/x", b"6").status == 200
    client.delete("/default/m/deleted/f")
    server.put("m/a/inner.zip", zip_bytes({"x": b"5"}))
    server.sync_mount()
    own = {"at": b"3", "below": None, "below/new": b"4", "nowhere": None, "nowhere/x": b"6"}
    inner = {"a": None, "a/inner": None, "a/inner/x": b"5"}
    assert tree(mount / "m") == {"d": None, "d/f": b"1", **own, **inner}
    assert not any(path.is_symlink() for path in mount.rglob("*"))


def test_archive_and_files_share_a_folder(server, mount):
    """Objects below the archive's folder are kept when the archive is replaced or deleted."""
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


def test_paused_mount_does_not_unpack(server, client, mount):
    """A paused mount does not unpack archives until the end of the pause."""
    server.mount_paused = True
    client.put("/default/m.zip", zip_bytes({"a": b"1"}))
    assert tree(mount) == {}
    server.mount_paused = False
    server.sync_mount()
    assert (mount / "m" / "a").read_bytes() == b"1"
