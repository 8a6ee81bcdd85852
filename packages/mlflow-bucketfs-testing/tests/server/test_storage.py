"""The store: compared with a dict, with aborted requests, full disks and restarts."""

from __future__ import annotations

import http.client
import resource
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mlflow_bucketfs_testing.server import BucketFSServer

AUTHORIZATION = {"Authorization": "Basic dzp3cml0ZQ=="}
# names that collide as file and folder, and names that look like archives
KEYS = st.lists(st.sampled_from(["d", "x", "ü ", "a.zip"]), min_size=1, max_size=3).map("/".join)


def wait_until(condition, timeout_s=10.0):
    """Wait for a condition that another thread fulfils."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def files_end_at(limit_bytes):
    """Limit the size of files: writes fail as on a full disk, but with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class StoreMachine(RuleBasedStateMachine):
    """Sequences of direct changes; store and mount are compared with a dict."""

    server: BucketFSServer
    journal: Path

    @initialize()
    def start(self):
        """Start with an empty bucket and an empty dict."""
        self.server.reset()
        self.model = {}

    @rule(key=KEYS, data=st.binary(max_size=20))
    def put(self, key, data):
        """Write a key."""
        self.server.put(key, data)
        self.model[key] = data

    @rule(key=KEYS)
    def delete(self, key):
        """Delete a key, which may be missing."""
        self.server.delete(key)
        self.model.pop(key, None)

    @rule()
    def pause(self):
        """Pause the mount, or end the pause."""
        self.server.mount_paused = not self.server.mount_paused

    @rule()
    def clear(self):
        """Remove all objects."""
        self.server.clear()
        self.model.clear()

    @rule(key=KEYS, data=st.binary(min_size=1, max_size=20), room=st.integers(0, 60))
    def put_on_a_full_disk(self, key, data, room):
        """Write a key, or fail because a file cannot grow, and change nothing."""
        with files_end_at(self.journal.stat().st_size + room):
            try:
                self.server.put(key, data)
            except OSError:
                return
        self.model[key] = data

    @rule()
    def restart(self):
        """Stop the server and start it with the same directory."""
        self.server.stop()
        self.server.start()

    @invariant()
    def same_objects(self):
        """Keys and bytes are those of the dict."""
        assert self.server.keys() == sorted(self.model)
        assert {key: self.server.read(key) for key in self.model} == self.model

    @invariant()
    def same_mount(self):
        """The mount has each object that is neither an archive nor hidden by a folder."""
        self.server.sync_mount()
        root = self.server.mount_root / "bfsdefault" / "default"
        shown = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }
        # archives are hidden without a folder, and none of these can be unpacked
        plain = {key: data for key, data in self.model.items() if not key.endswith(".zip")}
        folders = {key[:i] for key in plain for i in range(len(key)) if key[i] == "/"}
        assert shown == {key: data for key, data in plain.items() if key not in folders}
        assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()} == folders


def test_store_behaves_like_a_dict(tmp_path):
    """Store and mount equal a dict after all sequences of changes, failures and restarts."""
    with BucketFSServer(data_dir=tmp_path) as server:
        names = {"server": server, "journal": tmp_path / "index.jsonl"}
        machine = type("Machine", (StoreMachine,), names)
        case = machine.TestCase()
        case.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
        case.runTest()


@pytest.mark.parametrize("chunked", [False, True])
def test_aborted_upload_publishes_nothing(server, chunked):
    """A client that disconnects during an upload creates no object and changes no old one."""
    server.put("k", b"old")
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 5000000"
    head = (
        b"PUT /default/k HTTP/1.1\r\nAuthorization: Basic dzp3cml0ZQ==\r\nHost: localhost\r\n"
        + framing
        + b"\r\n\r\n"
    )
    part = bytes(4_000_000)
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(head + (b"%x\r\n%b\r\n" % (len(part), part) if chunked else part))
    wait_until(lambda: len(server.requests) == 1)
    assert server.requests[0].status is None
    assert server.requests[0].user == "w"
    assert server.read("k") == b"old"
    assert len(list((server.mount_root.parent / "blobs").iterdir())) == 1


def test_reader_finishes_with_the_old_bytes(server, connect):
    """A download that started before an object is replaced or deleted gets all old bytes."""
    old = b"old" * 10_000_000
    server.put("k", old)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    connection.request("GET", "/default/k")
    response = connection.getresponse()
    begin = response.read(1000)
    assert connect(server).put("/default/k", b"new").status == 200
    assert connect(server).delete("/default/k").status == 200
    assert begin + response.read() == old
    connection.close()


def test_concurrent_writers_leave_one_complete_object(server):
    """After many concurrent PUTs of a key, its content is that of one PUT."""

    def write(number):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        for _ in range(5):
            connection.request("PUT", "/default/k", bytes([number]) * 300_000, AUTHORIZATION)
            assert connection.getresponse().read() == b""
        connection.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = server.read("k")
    assert len(data) == 300_000
    assert len(set(data)) == 1
    assert server.requests.count(method="PUT", status=200, key="k") == 40


def test_data_dir_is_served_again(tmp_path, connect):
    """With a data directory, a later server has the same objects, and removes partial files."""
    directory = tmp_path / "new" / "data"
    with BucketFSServer(data_dir=directory) as server:
        client = connect(server)
        client.put("/default/d/x", b"1")
        client.put("/default/d/x", b"22")
        client.put("/default/%C3%BC%20gone", b"3")
        client.delete("/default/%C3%BC%20gone")
        client.put("/default/d", b"outer")
    (directory / "blobs" / "999").write_bytes(b"of a crash")
    with (directory / "index.jsonl").open("a") as journal:
        journal.write('["default", "torn", 9')
    for _ in range(2):
        with BucketFSServer(data_dir=directory) as server:
            assert not (directory / "mount").exists()
            assert server.keys() == ["d", "d/x"]
            assert (server.read("d"), server.read("d/x")) == (b"outer", b"22")
            assert (server.mount_root / "bfsdefault/default/d/x").read_bytes() == b"22"
            assert len(list((directory / "blobs").iterdir())) == 2
            server.put("d/x", b"22")


def test_data_dir_is_used_by_one(tmp_path):
    """A second server on the same data directory is refused, and does not affect the first."""
    with BucketFSServer(data_dir=tmp_path) as server:
        server.put("k", b"1")
        with pytest.raises(OSError, match="in use by another"):
            BucketFSServer(data_dir=tmp_path).start()
        server.put("k", b"2")
        assert server.read("k") == b"2"


def contents(server):
    """Return all objects of the default bucket."""
    return {key: server.read(key) for key in server.keys()}


def on_mount(server):
    """Return all files of the default bucket on the mount."""
    root = server.mount_root / "bfsdefault" / "default"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mounted", [False, True])
def test_full_disk_changes_nothing(tmp_path, connect, caplog, mounted):
    """A change that cannot be written to disk is answered with 500 and has no effect."""
    with BucketFSServer(data_dir=tmp_path) as server:
        client = connect(server)
        client.put("/default/old", b"old")
        journal = tmp_path / "index.jsonl"
        if mounted:
            assert on_mount(server) == {"old": b"old"}
        for room_bytes in (0, 1, 15):  # the journal's line cannot be written, or only in part
            with files_end_at(journal.stat().st_size + room_bytes):
                assert client.put("/default/d/new", b"new").status == 500
                assert client.put("/default/old", b"newer").status == 500
                assert client.delete("/default/old").status == 500
                with pytest.raises(OSError, match="File too large"):
                    server.put("direct", b"1")
        with files_end_at(300_000):  # in the middle of a body
            assert client.put("/default/large", bytes(400_000)).status == 500
            with pytest.raises(OSError, match="File too large"):
                server.put("large", bytes(400_000))
        assert {record.status for record in server.requests[1:]} == {500}
        assert contents(server) == {"old": b"old"}
        assert len(list((tmp_path / "blobs").iterdir())) == 1
        if mounted:
            assert on_mount(server) == {"old": b"old"}
        client.put("/default/after", b"1")
    assert "File too large" in caplog.text
    with BucketFSServer(data_dir=tmp_path) as server:
        assert contents(server) == {"old": b"old", "after": b"1"}


def test_start_on_a_full_disk(tmp_path):
    """A server whose journal cannot be compacted starts, reads and deletes."""
    with BucketFSServer(data_dir=tmp_path) as server:
        server.put_many((f"key-{number}", b"1") for number in range(100))
        server.delete("key-0")
    with (tmp_path / "index.jsonl").open("a") as journal:
        journal.write('["default", "torn", 9')
    with files_end_at(1000):
        server = BucketFSServer(data_dir=tmp_path)
        server.start()
        assert len(contents(server)) == 99
        server.stop()
    with BucketFSServer(data_dir=tmp_path) as server:
        server.put("torn", b"2")
        assert len(contents(server)) == 100


def test_lost_objects_are_not_listed(tmp_path, caplog):
    """After external damage, a server starts with the intact objects, and logs the lost ones."""
    with BucketFSServer(data_dir=tmp_path) as server:
        server.put_many((key, b"bytes") for key in ("missing", "short", "intact", "last"))
        blobs = sorted((tmp_path / "blobs").iterdir(), key=lambda blob: int(blob.name))
    blobs[0].unlink()
    blobs[1].chmod(0o644)
    blobs[1].write_bytes(b"byt")
    blobs[3].unlink()
    (tmp_path / "blobs" / "lost+found").mkdir()
    journal = tmp_path / "index.jsonl"
    journal.write_text('["default", "tor["default", "x", 7, 3]\n' + journal.read_text())
    with BucketFSServer(data_dir=tmp_path) as server:
        assert contents(server) == {"intact": b"bytes"}
        assert on_mount(server) == {"intact": b"bytes"}
        server.put("new", b"bytes")
    assert [record.args[0] for record in caplog.records[1:]] == ["missing", "short", "last"]
    with BucketFSServer(data_dir=tmp_path) as server:
        assert contents(server) == {"intact": b"bytes", "new": b"bytes"}


def test_uploads_that_fail_on_the_mount_are_not_stored(tmp_path, connect):
    """An upload that fails on the mount is undone; after a repair, the mount is complete."""
    with BucketFSServer(data_dir=tmp_path) as server:
        server.put("old", b"1")
        root = server.mount_root / "bfsdefault" / "default"
        shutil.rmtree(root)
        client = connect(server)
        assert client.put("/default/d/new", b"2").status == 500
        assert client.put("/default/old", b"2").status == 500
        root.mkdir()
        server.sync_mount()
        assert contents(server) == on_mount(server) == {"old": b"1"}
        assert not (root / "d").exists()
    with BucketFSServer(data_dir=tmp_path) as server:
        assert contents(server) == {"old": b"1"}


def test_temporary_directory_is_removed():
    """Without a data directory, all files are removed at the end."""
    with BucketFSServer(tls_port=0) as server:
        server.put("a/b", b"1")
        directory = server.mount_root.parent
        assert directory.is_dir()
    assert not directory.exists()


def test_direct_access(server):
    """The errors for missing keys and buckets contain their names."""
    server.put("k", b"1", "private")
    assert (server.keys(), server.keys("private")) == ([], ["k"])
    server.delete("none")
    with pytest.raises(FileNotFoundError, match="'k' in the bucket 'default'"):
        server.read("k")
    with pytest.raises(ValueError, match="no bucket 'other'"):
        server.keys("other")
