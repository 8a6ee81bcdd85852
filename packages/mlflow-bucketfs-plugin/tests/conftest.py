"""Fixtures: a BucketFS server per test, repositories on it, and separate Python processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import uuid
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import settings as hypothesis_settings
from mlflow import MlflowClient
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer

# the time of an example depends on the load of the machine
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")

# Names that MLflow or the plugin might misinterpret: parts of a URI, escapes, hidden files, a home,
# archives. Names that HTTP or BucketFS might change are tested in core.
ODD_NAMES = ("a#b", "q?x", "p%41", "plus+x y", "größe 模型", ".hidden", "~", "m.tar.gz")
LOGGED_MODEL = f"1/models/m-{'0a' * 16}/artifacts"
MODEL_FILES = {
    "MLmodel": b"flavors: {}\n",
    "model.pkl": b"pickle",
    "code/x.py": b"",
    ".hidden": b"h",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Set the write password and retries without waiting; unset the caller's variables."""
    for name in list(os.environ):
        if name.startswith(("EXA_", "MLFLOW_", "_MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return monkeypatch


@pytest.fixture
def make_server():
    """Start servers that stop with the test.

    Each has a bucket whose name no other test uses: a process remembers known folders and written
    buckets, and ports are reused.
    """
    servers = []

    def make(*, bucket="", public=True, **options):
        name = bucket or f"b{uuid.uuid4().hex[:12]}"
        servers.append(BucketFSServer((BucketConfig(name, public=public),), **options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(make_server):
    """A BucketFS with one public bucket."""
    return make_server()


@pytest.fixture
def hostile_server():
    """A server that lists the keys that a test sets, including invalid ones."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            listing = "\n".join(self.server.keys).encode("utf-8", "surrogateescape")
            self.send_response(200)
            self.send_header("Content-Length", str(len(listing)))
            self.end_headers()
            self.wfile.write(listing)

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.uri = f"exa+bfs://127.0.0.1:{server.server_port}/s/b/root"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def repo(server):
    """The repository at the folder ``root`` of that bucket."""
    return BucketFSArtifactRepository(server.uri(path="root"))


@pytest.fixture
def bucket_on_mount(server, monkeypatch):
    """The directory of that bucket on the mount that this process uses."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root))
    return server.mount_root / server.service / server.buckets[0].name


@pytest.fixture(scope="module", autouse=True)
def _working_directory(tmp_path_factory):
    """Change to an empty directory, without ``mlflow.db`` and ``mlruns`` of other versions.

    An older MLflow creates them when it saves a model, and fails with a newer one's database.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    """A tracking database, created once because that takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{folder}/mlflow.db"
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.chdir(folder)  # an older MLflow creates mlruns
        MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def new_experiment(tracking_uri, environment):
    """Create experiments with a location, in the tracking database of the process."""

    def make(location):
        return MlflowClient().create_experiment(uuid.uuid4().hex, artifact_location=location)

    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    return make


@pytest.fixture
def mounted(server, bucket_on_mount):
    """A repository whose bucket is mounted, with a model, a plain folder and a file."""
    assert bucket_on_mount.is_dir()
    server.put_many((f"root/{LOGGED_MODEL}/{name}", data) for name, data in MODEL_FILES.items())
    server.put_many([("root/plots/a.png", b"12345"), ("root/notes.txt", b"n")])
    return BucketFSArtifactRepository(server.uri(path="root"))


@pytest.fixture
def temporary_directory(local, monkeypatch):
    """The directory for temporary directories of this process."""
    directory = local.directory("tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def no_requests(server):
    """Check after the test that nothing has connected to BucketFS."""
    yield
    assert server.requests.connections == 0


@pytest.fixture
def odd_names():
    """Legal names that MLflow or the plugin might misinterpret."""
    return ODD_NAMES


@pytest.fixture
def run_python(tmp_path):
    """Run code in a separate Python process and return its output."""

    def run(code, *arguments, **variables):
        completed = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **variables},
            check=False,
            timeout=600,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


class LocalFiles:
    """Local directories of a test, each written and read in one call."""

    def __init__(self, root):
        self.root = root

    def directory(self, name="down"):
        """Make an empty directory."""
        path = self.root / name
        path.mkdir()
        return path

    def write(self, files, directory="files"):
        """Write bytes by name into a directory and return it."""
        root = self.root / directory
        root.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return root

    def read(self, directory):
        """Return all files below a directory as bytes by name."""
        return {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def local(tmp_path):
    """Local files to log, and directories to download into."""
    return LocalFiles(tmp_path)
