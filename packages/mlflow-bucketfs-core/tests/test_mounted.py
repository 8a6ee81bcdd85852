"""Buckets on the mount: which path a URI has there, and when it counts."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from mlflow_bucketfs_core import (
    BucketFSUri,
    ConnectionSettings,
    load_model_with_fallback,
    local_path_or_uri,
    mounted_path,
    udf_path,
)
from mlflow_bucketfs_core.errors import ConfigurationError, InvalidUriError, UnsafeEntryError
from mlflow_bucketfs_core.hosts import HostRule

URI = "exa+bfs://db:2580/bfsdefault/default"


@pytest.fixture
def mounted(server, monkeypatch):
    """The server's mount as the one of this process, with a model and an archive."""
    server.put_many([("models/churn/MLmodel", b"1"), ("plain.gz", b"2")])
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(server.mount_root))
    return server.mount_root


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (URI, "/buckets/bfsdefault/default"),
        (f"{URI}/", "/buckets/bfsdefault/default"),
        (f"{URI}/models//churn/", "/buckets/bfsdefault/default/models/churn"),
        (f"{URI}/m.tar.gz", "/buckets/bfsdefault/default/m"),
        (f"{URI}/m.gz", "/buckets/bfsdefault/default/m.gz"),
        (f"{URI}/d.zip/m", "/buckets/bfsdefault/default/d.zip/m"),
        (f"{URI}/p%41 ü", "/buckets/bfsdefault/default/p%41 ü"),
        ("exabfss://[::1]:7/s/b/x", "/buckets/s/b/x"),
    ],
)
def test_udf_path_is_where_a_udf_sees_it(uri, expected):
    """The path follows from the URI alone, text or parsed, whatever the environment says."""
    assert udf_path(uri) == expected
    assert udf_path(BucketFSUri.parse(uri)) == expected


def test_udf_path_does_not_ask_the_environment(monkeypatch):
    """What a UDF sees does not depend on where the question is asked."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "/elsewhere")
    assert udf_path(URI) == "/buckets/bfsdefault/default"


@pytest.mark.parametrize(
    "uri", ["exa+bfs://db", "exa+bfs://db/s", "exa+bfs://w:p@db/s/b", f"{URI}/.."]
)
def test_bad_uris_are_refused(uri):
    """A URI without bucket, or a malformed one, has no path."""
    for function in (udf_path, mounted_path, local_path_or_uri):
        with pytest.raises(InvalidUriError):
            function(uri)


def test_mounted_path_is_where_it_exists(mounted):
    """Files, folders and the bucket are found; what is not there has no path."""
    assert mounted_path(URI) == f"{mounted}/bfsdefault/default"
    assert mounted_path(f"{URI}/models/churn") == f"{mounted}/bfsdefault/default/models/churn"
    assert mounted_path(f"{URI}/plain.gz") == f"{mounted}/bfsdefault/default/plain.gz"
    assert mounted_path(f"{URI}/missing") is None
    assert mounted_path(f"{URI}/plain.gz/below") is None
    assert mounted_path(f"{URI}/{'x' * 300}") is None
    assert mounted_path("exa+bfs://db/bfsdefault/other") is None


def test_archives_are_found_unpacked(server, mounted, tmp_path):
    """The path of an archive is the folder that BucketFS unpacks it to."""
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "MLmodel").write_bytes(b"1")
    archive = shutil.make_archive(str(tmp_path / "m"), "gztar", tmp_path / "content")
    server.put("m.tar.gz", Path(archive).read_bytes())
    server.sync_mount()
    assert mounted_path(f"{URI}/m.tar.gz") == f"{mounted}/bfsdefault/default/m"


def test_a_logged_model_counts_from_when_its_mlmodel_is_there(server, mounted):
    """MLmodel is uploaded last: without it, the folder is not there yet, though its files are."""
    folder = f"1/models/m-{'0a' * 16}/artifacts"
    server.put(f"{folder}/model.pkl", b"1")
    assert mounted_path(f"{URI}/{folder}") is None
    assert local_path_or_uri(f"{URI}/{folder}") == f"{URI}/{folder}"
    assert mounted_path(f"{URI}/{folder}/model.pkl")
    server.put(f"{folder}/MLmodel", b"1")
    assert mounted_path(f"{URI}/{folder}") == f"{mounted}/bfsdefault/default/{folder}"


def test_what_may_not_be_looked_at_is_an_error(run_python):
    """It is neither there nor missing: the error names it, and HTTP is asked in its place."""
    code = """
import logging, os, shutil, sys, tempfile
from mlflow_bucketfs_core import load_model_with_fallback, local_path_or_uri, mounted_path
from mlflow_bucketfs_core.mounted import reads_over_http
logging.basicConfig()
root = os.environ["EXA_BUCKETFS_MOUNT_ROOT"] = tempfile.mkdtemp()
os.makedirs(f"{root}/s/b/d")
os.chmod(f"{root}/s", 0)
if os.geteuid() == 0:  # whom no permissions stop
    os.chmod(root, 0o755)
    os.seteuid(65534)
for use in (mounted_path, local_path_or_uri):
    try:
        use("exa+bfs://h/s/b/d")
    except PermissionError as error:
        print(error.filename.removeprefix(root))
print(load_model_with_fallback("exa+bfs://h/s/b/d", lambda uri: (uri, reads_over_http())))
os.seteuid(os.getuid())
os.chmod(f"{root}/s", 0o700)
shutil.rmtree(root)
"""
    out, err = run_python(code)
    assert out.splitlines() == ["/s/b/d", "/s/b/d", "('exa+bfs://h/s/b/d', True)"]
    assert "/s/b/d, trying HTTP: PermissionError: [Errno 13] Permission denied: " in err


UNSAFE = {
    "file": "models/passwd",
    "folder": "models/out",
    "below a folder": "models/out/x",
    "neighbour": "models/near",
    "to nowhere": "models/nowhere",
    "MLmodel": f"models/m-{'0a' * 16}/artifacts",
    "pipe": "pipe",
}


@pytest.fixture
def unsafe(tmp_path):
    """A mount, reached by a link, with entries that only an unpacked archive can have."""
    bucket = tmp_path / "real" / "bfsdefault" / "default"
    (bucket / UNSAFE["MLmodel"]).mkdir(parents=True)
    (bucket.parent / "default2").mkdir()
    (bucket / "plain").write_bytes(b"1")
    (tmp_path / "x").write_bytes(b"secret")
    links = {
        "passwd": tmp_path / "x",
        "out": tmp_path,
        "near": "../../default2",
        "nowhere": "/nowhere",
        "within": "../plain",
        "absolute": bucket,
        f"m-{'0a' * 16}/artifacts/MLmodel": tmp_path / "x",
    }
    for name, target in links.items():
        (bucket / "models" / name).symlink_to(target)
    os.mkfifo(bucket / "pipe")
    (tmp_path / "mount").symlink_to("real")
    return tmp_path / "mount"


@pytest.mark.parametrize("path", UNSAFE.values(), ids=UNSAFE)
def test_links_out_of_the_bucket_and_pipes_are_refused(unsafe, path):
    """A link leads nowhere but into its own bucket; the error names it and its target."""
    settings = ConnectionSettings(mount_root=str(unsafe))
    with pytest.raises(UnsafeEntryError) as caught:
        mounted_path(f"{URI}/{path}", settings)
    assert str(caught.value).startswith(f"{unsafe}/bfsdefault/default/{path}")
    assert ("is not a regular file" if path == "pipe" else " leads to /") in str(caught.value)


def test_links_within_the_bucket_are_followed(unsafe):
    """So is a mount root that is a link itself."""
    settings = ConnectionSettings(mount_root=str(unsafe))
    for path in ("models/within", "models/absolute", "models/absolute/plain", ""):
        found = mounted_path(f"{URI}/{path}", settings)
        assert found == f"{unsafe}/bfsdefault/default/{path}".rstrip("/")


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        (None, True),
        ((HostRule("db"),), True),
        ((HostRule("db", plain_http=True),), True),
        ((HostRule("db", 2581),), False),
        ((HostRule("other"),), False),
        ((), False),
    ],
)
def test_only_listed_hosts_are_looked_up(server, mounted, hosts, found):
    """Every cluster has a ``bfsdefault/default``: the list says whose is mounted here."""
    settings = ConnectionSettings(mount_root=str(server.mount_root), mount_hosts=hosts)
    expected = f"{mounted}/bfsdefault/default/plain.gz" if found else None
    assert mounted_path(f"{URI}/plain.gz", settings) == expected


def test_local_path_or_uri(mounted):
    """What is mounted becomes a path; everything else stays what it is."""
    assert local_path_or_uri(f"{URI}/plain.gz") == f"{mounted}/bfsdefault/default/plain.gz"
    for text in (f"{URI}/missing", "s3://b/x", "/local", "exabfs", "runs:/1/model", ""):
        assert local_path_or_uri(text) == text


def test_a_bad_variable_is_reported(monkeypatch):
    """A mount root that cannot be one is an error, not a missing mount."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "relative")
    with pytest.raises(ConfigurationError, match="EXA_BUCKETFS_MOUNT_ROOT"):
        mounted_path(URI)


class Loader:
    """Load a model from a URI or path; fail on paths if asked to."""

    def __init__(self, *failing):
        self.calls = []
        self._failing = failing

    def __call__(self, uri, **kwargs):
        """Return the argument for the model."""
        self.calls.append((uri, kwargs))
        if uri.startswith(self._failing or "\0"):
            raise RuntimeError(f"cannot load {uri}")
        return uri


def test_models_are_loaded_from_the_mount(mounted):
    """What is mounted is loaded from there, once, with all arguments."""
    load = Loader()
    path = f"{mounted}/bfsdefault/default/models/churn"
    assert load_model_with_fallback(f"{URI}/models/churn", load, dst_path="x") == path
    assert load.calls == [(path, {"dst_path": "x"})]


def test_models_that_fail_on_the_mount_are_loaded_by_uri(mounted, caplog):
    """The second attempt gets the URI, and the first failure is logged."""
    load = Loader(str(mounted))
    uri = f"{URI}/models/churn"
    with caplog.at_level(logging.WARNING):
        assert load_model_with_fallback(uri, load, dst_path="x") == uri
    assert [call[1] for call in load.calls] == [{"dst_path": "x"}] * 2
    assert "cannot load" in caplog.text


def test_both_failures_are_reported(mounted):
    """If both attempts fail, the error is that over HTTP with that on the mount as its context."""
    uri = f"{URI}/models/churn"
    with pytest.raises(RuntimeError, match=r"cannot load exa\+bfs") as caught:
        load_model_with_fallback(uri, Loader(str(mounted), "exa+bfs"))
    assert str(mounted) in str(caught.value.__context__)


def test_what_is_not_on_the_mount_is_read_over_http(mounted, caplog):
    """Also where the rest of the bucket is mounted, and MLflow would say that it is missing."""
    with caplog.at_level(logging.INFO):
        assert load_model_with_fallback(f"{URI}/missing", lambda _: mounted_path(URI)) is None
    assert mounted_path(URI) == f"{mounted}/bfsdefault/default"
    assert caplog.messages == [f"{URI}/missing is not mounted here: reading over HTTP"]


@pytest.mark.parametrize(("uri", "over_http"), [(f"{URI}/x", True), ("runs:/1/model", False)])
def test_other_uris_are_left_to_the_loader(mounted, uri, over_http):
    """Only for a URI of BucketFS is HTTP asked for; what is behind others is not known here."""
    seen = load_model_with_fallback(uri, lambda _: mounted_path(URI))
    assert seen == (None if over_http else f"{mounted}/bfsdefault/default")


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("uri", ["exa+bfs://db", "exa+bfs://db/s", "exa+bfs://w:p@db/s/b"])
def test_bad_uris_are_not_loaded(uri):
    """A malformed URI is reported as such, not as a failure of the mount."""
    load = Loader()
    with pytest.raises(InvalidUriError):
        load_model_with_fallback(uri, load)
    assert load.calls == []


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("uri", [f"{URI}/missing", "runs:/1/model", "models:/m/1"])
def test_what_is_not_mounted_is_loaded_once(uri):
    """Without a path there is only one attempt."""
    load = Loader("")
    with pytest.raises(RuntimeError):
        load_model_with_fallback(uri, load)
    assert [call[0] for call in load.calls] == [uri]


def test_the_second_attempt_reads_over_http_whatever_is_mounted(mounted):
    """While it runs, nothing counts as mounted; afterwards it does again."""
    uri = f"{URI}/models/churn"
    path = f"{mounted}/bfsdefault/default/models/churn"
    seen = []

    def load(argument):
        seen.append((argument, mounted_path(uri)))
        if argument == path:
            raise RuntimeError("damaged")
        return argument

    assert load_model_with_fallback(uri, load) == uri
    assert seen == [(path, path), (uri, None)]
    assert mounted_path(uri) == path
