"""Local files that grow, shrink, cannot be read or written, and downloads that are killed."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow_bucketfs_core import Bucket, files
from mlflow_bucketfs_core.errors import AccessDeniedError, IncompleteTransferError
from mlflow_bucketfs_core.files import _named_file, atomic_file
from mlflow_bucketfs_testing.server import Fault

LARGE_BYTES = 48 << 20  # more than the sockets of both sides can hold

CONNECT = """
import os, sys
from mlflow_bucketfs_core import Bucket, ConnectionSettings
uri, folder = sys.argv[1:3]
bucket = Bucket(uri, ConnectionSettings(password="write", backoff_factor=0.0, backoff_jitter=0.0))
"""


@pytest.fixture
def large_file(tmp_path):
    """A sparse file of zeros."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE_BYTES)
    return path


@pytest.fixture
def changed_while_uploaded(own_server, settings, large_file):
    """Upload the large file, and change it once its beginning has been sent."""
    begun, changed = threading.Event(), threading.Event()

    def pump(source, target):
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if passed > 1 << 20:  # more than a listing has
                    begun.set()
                    changed.wait(60)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def relay():
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", own_server.port))
                for ends in ((client, server), (server, client)):
                    threads.append(threading.Thread(target=pump, args=ends))
                    threads[-1].start()
                connections.extend((client, server))

    def upload(change):
        port = listener.getsockname()[1]
        bucket = Bucket(own_server.uri().replace(f":{own_server.port}/", f":{port}/"), settings)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(bucket.upload_file, "large", large_file)
            assert begun.wait(60)
            change(large_file)
            changed.set()
            future.result(60)

    threads, connections = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=relay))
        threads[0].start()
        yield upload
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        with connection, suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


def test_a_growing_file_is_stored_as_it_was(own_server, changed_while_uploaded):
    """A growing file is stored with the length that it had at the beginning."""

    def grow(path):
        with path.open("ab") as file:
            file.write(b"more" * 1000)

    changed_while_uploaded(grow)
    assert own_server.read("large") == bytes(LARGE_BYTES)


def test_a_shrinking_file_is_not_stored(own_server, changed_while_uploaded, wait_until):
    """A file that becomes shorter is not stored, and the error names it."""
    with pytest.raises(IncompleteTransferError, match="large became shorter"):
        changed_while_uploaded(lambda path: os.truncate(path, 1000))
    assert own_server.keys() == []
    wait_until(lambda: own_server.requests.count(method="PUT"))
    assert own_server.keys() == []
    assert own_server.requests.count(method="PUT") == 1


def test_a_source_that_fails_stores_nothing(own_server, settings, wait_until):
    """An upload whose source fails raises the source's error after one request."""
    bucket = Bucket(own_server.uri(), settings)

    class BadDisk(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 2_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(IncompleteTransferError, match="Input/output error") as caught:
        bucket.upload_fileobj("bad/disk", BadDisk(bytes(5_000_000)))
    error, depth = caught.value, 0
    while error := error.__cause__ or error.__context__:
        depth += 1
        assert depth < 20

    def source():
        yield bytes(9_000_000)
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        bucket.upload_stream("bad/source", source())
    bucket.upload_bytes("bad/fine", b"1")
    wait_until(lambda: own_server.requests.count(method="PUT") == 3)
    assert own_server.keys() == ["bad/fine"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing"])
def test_paths_without_a_regular_file_are_refused(server, bucket, tmp_path, kind):
    """A named pipe, a directory and a missing file are refused without a request."""
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(OSError, match=str(path)):
        bucket.upload_file("x", path)
    assert len(server.requests) == 0


def test_links_to_files_are_followed(server, bucket, tmp_path):
    """A symbolic link to a file is uploaded as that file."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    bucket.upload_file("links/x", tmp_path / "link")
    assert server.read("links/x") == b"1"


def test_permissions_are_reported(server, run_python):
    """An unreadable file and a read-only directory raise ``PermissionError``."""
    server.put("there", b"1")
    code = """
bucket.download_file("there", f"{folder}/readable")  # imports modules that other users cannot read
os.mkdir(f"{folder}/locked")
os.chmod(f"{folder}/locked", 0o555)
os.chmod(f"{folder}/readable", 0)
if os.geteuid() == 0:  # permissions do not apply to root
    os.chmod(folder, 0o755)
    os.setuid(65534)
for attempt in (
    lambda: bucket.upload_file("x", f"{folder}/readable"),
    lambda: bucket.download_file("there", f"{folder}/locked/x"),
):
    try:
        attempt()
    except PermissionError as error:
        print(error.filename.removeprefix(folder))
"""
    with TemporaryDirectory() as folder:
        out, _ = run_python(CONNECT + code, server.uri(), folder)
        assert list(Path(folder, "locked").iterdir()) == []
    refused, in_directory = out.split()
    assert refused == "/readable"
    assert in_directory.startswith("/locked")
    assert server.keys() == ["there"]


@pytest.mark.parametrize(
    "target", ["missing/x", "", "file/x"], ids=["missing", "directory", "file"]
)
def test_invalid_targets_leave_no_file(server, bucket, tmp_path, target):
    """A target that is a directory, or is not in one, raises an ``OSError``."""
    server.put("there", b"1")
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "file").write_bytes(b"old")
    with pytest.raises(OSError, match=rf"^\[Errno \d+\] .*'{directory}"):
        bucket.download_file("there", directory / target)
    assert list(tmp_path.iterdir()) == [directory]
    assert [path.name for path in directory.iterdir()] == ["file"]


@pytest.mark.parametrize("old", [None, b"old and longer"], ids=["new", "existing"])
def test_downloads_replace_older_files(server, bucket, tmp_path, old):
    """A download replaces an older file, with a mode that follows the umask."""
    server.put("there", b"new")
    target = tmp_path / ("x" * 255)
    if old:
        target.write_bytes(old)
        target.chmod(0o400)
    umask = os.umask(0o027)
    try:
        bucket.download_file("there", target)
    finally:
        os.umask(umask)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_replaced_not_followed(server, bucket, tmp_path):
    """A download to a symbolic link replaces the link, and its target is unchanged."""
    server.put("there", b"new")
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        bucket.download_file("there", tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"new"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "other").read_bytes() == b"other"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("method", [atomic_file, _named_file], ids=["unnamed", "named"])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "existing"])
def test_both_kinds_of_temporary_files(tmp_path, method, old):
    """A failure changes nothing and success is complete, with both kinds of temporary files."""
    target = tmp_path / "x"
    if old:
        target.write_bytes(old)
    before = set(tmp_path.iterdir())

    def write_and_fail():
        with method(target) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert set(tmp_path.iterdir()) == before
    assert old is None or target.read_bytes() == old
    umask = os.umask(0o077)
    try:
        with method(target) as file:
            file.write(b"whole")
    finally:
        os.umask(umask)
    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture(params=["unnamed", "named"])
def either_method(request, monkeypatch):
    """Use temporary files without a name, as on Linux, and with one, as elsewhere."""
    if request.param == "named":
        monkeypatch.setattr(files, "_has_proc", lambda: False)


@pytest.mark.usefixtures("either_method")
@pytest.mark.parametrize("name", ["folder", "missing/x", "x" * 300, "file/x"])
def test_a_target_that_cannot_be_written_is_named(server, bucket, tmp_path, name):
    """The error names the target instead of a temporary file, and keeps its class."""
    server.put("there", b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    target = str(tmp_path / name)
    with pytest.raises(OSError, match=re.escape(repr(target)) + "$") as caught:
        bucket.download_file("there", target)
    assert caught.value.filename == target
    assert ".part" not in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError) == (name == "missing/x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failed_write_names_the_file(server, run_python, tmp_path):
    """The error of a failed write names the file, unlike the system's own error."""
    server.put("there", bytes(1 << 20))
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    bucket.download_file("there", f"{folder}/x")
except OSError as error:
    print(error)
"""
    out, _ = run_python(CONNECT + code, server.uri(), tmp_path)
    assert out == f"[Errno {errno.EFBIG}] File too large: '{tmp_path}/x'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        # different folders: one that a test has just used needs no listing
        (lambda bucket: bucket.upload_bytes("named1/x", b""), "upload 'named1/x' to"),
        (lambda bucket: bucket.upload_stream("named2/x", iter([b""])), "upload 'named2/x' to"),
        (lambda bucket: bucket.prepare_uploads(["named3/x", "named3/y"]), "upload artifacts to"),
    ],
    ids=["upload", "stream", "many"],
)
def test_a_failed_listing_names_the_upload(server, bucket, operation, named):
    """The error of a listing before an upload names the upload."""
    server.inject(Fault.status(403, method="GET"))
    with pytest.raises(AccessDeniedError, match=f"^Cannot {named} exa"):
        operation(bucket)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux's /proc")
def test_a_file_without_a_size_is_named(server, bucket):
    """A file whose size the system does not report is refused by name."""
    with pytest.raises(OSError, match=r"Cannot upload /proc/meminfo: .*size.* regular file"):
        bucket.upload_file("meminfo", "/proc/meminfo")
    assert server.keys() == []


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "existing"])
def test_a_killed_download_leaves_nothing(own_server, start_python, wait_until, tmp_path, old):
    """A download that is killed leaves no new file, and does not change an older one."""
    own_server.put("there", bytes(4_000_000))
    own_server.inject(Fault.trickle(40_000, method="GET", key="there"))
    target = tmp_path / "x"
    if old:
        target.write_bytes(old)
    before = set(tmp_path.iterdir())
    code = CONNECT + 'bucket.download_file("there", f"{folder}/x")'
    process = start_python(code, own_server.uri(), tmp_path)
    wait_until(lambda: not len(own_server.faults))
    assert process.poll() is None
    process.kill()
    process.wait()
    assert set(tmp_path.iterdir()) == before
    assert old is None or target.read_bytes() == old


def test_memory_stays_flat(server, run_python, tmp_path):
    """Transferring 64 MiB, by file and by stream, takes no more memory than 1 MiB does."""
    for name, size in (("small", 1 << 20), ("large", 64 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    code = """
import resource
def transfer(name):
    path = f"{folder}/{name}"
    bucket.upload_file(f"memory/{name}", path)
    bucket.download_file(f"memory/{name}", f"{path}.down")
    with open(path, "rb") as file:
        bucket.upload_stream(f"memory/{name}.stream", iter(lambda: file.read(1 << 20), b""))
    assert sum(map(len, bucket.iter_content(f"memory/{name}"))) == os.path.getsize(path)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small, large = transfer("small"), transfer("large")
print(large - small)
"""
    out, _ = run_python(CONNECT + code, server.uri(), tmp_path)
    assert (tmp_path / "large.down").stat().st_size == 64 << 20
    assert int(out) < 32 * 1024  # KiB; of which 10 MiB are the buffered beginning of the stream


def test_a_forked_child_has_its_own_connections(server, run_python, tmp_path):
    """Children that are forked during transfers of other threads use their own connections."""
    code = """
import threading
stop = threading.Event()
failures = []
def transfer(number):
    round = 0
    while not stop.is_set():
        key, content = f"fork/parent{number}", os.urandom(50_000)
        try:
            bucket.upload_bytes(key, content)
            assert b"".join(bucket.iter_content(key)) == content
            bucket.download_file(key, f"{folder}/parent{number}")
        except BaseException as error:
            failures.append(repr(error))
threads = [threading.Thread(target=transfer, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for number in range(10):
    pid = os.fork()
    if pid == 0:
        key = f"fork/child{number}"
        try:
            bucket.upload_bytes(key, b"child")
            good = b"".join(bucket.iter_content(key)) == b"child" and bucket.exists(key)
            bucket.keys()
            bucket.download_file(key, f"{folder}/child")
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures
"""
    run_python(CONNECT + code, server.uri(), tmp_path)
    children = {r.connection for r in server.requests if r.key.startswith("fork/child")}
    parents = {r.connection for r in server.requests if r.key.startswith("fork/parent")}
    assert len(children) >= 10
    assert parents
    assert not children & parents
    assert {record.status for record in server.requests} == {200}
