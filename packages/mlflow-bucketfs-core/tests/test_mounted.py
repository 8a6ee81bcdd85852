"""Buckets on the mount: the path of a URI, and whether it exists."""

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
    """The mount of the server, set for this process, with a model and a ``.gz`` file."""
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
def test_udf_path(uri, expected):
    """The path depends on the URI only, given as text or parsed."""
    assert udf_path(uri) == expected
    assert udf_path(BucketFSUri.parse(uri)) == expected


def test_udf_path_ignores_the_environment(monkeypatch):
    """The path in a UDF does not depend on the environment variables."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "/elsewhere")
    assert udf_path(URI) == "/buckets/bfsdefault/default"


@pytest.mark.parametrize(
    "uri", ["exa+bfs://db", "exa+bfs://db/s", "exa+bfs://w:p@db/s/b", f"{URI}/.."]
)
def test_bad_uris_are_refused(uri):
    """A malformed URI, and one without a bucket, are refused."""
    for function in (udf_path, mounted_path, local_path_or_uri):
        with pytest.raises(InvalidUriError):
            function(uri)


def test_mounted_path(mounted):
    """Existing files, folders and buckets have a path; missing ones have none."""
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


def test_a_logged_model_without_its_mlmodel_is_missing(server, mounted):
    """The folder of a logged model has no path until its ``MLmodel`` exists."""
    folder = f"1/models/m-{'0a' * 16}/artifacts"
    server.put(f"{folder}/model.pkl", b"1")
    assert mounted_path(f"{URI}/{folder}") is None
    assert local_path_or_uri(f"{URI}/{folder}") == f"{URI}/{folder}"
    assert mounted_path(f"{URI}/{folder}/model.pkl")
    server.put(f"{folder}/MLmodel", b"1")
    assert mounted_path(f"{URI}/{folder}") == f"{mounted}/bfsdefault/default/{folder}"


def test_a_path_without_permission_is_an_error(run_python):
    """A path without permission raises an error that names it; a model is read over HTTP."""
    code = """
import logging, os, shutil, sys, tempfile
from mlflow_bucketfs_core import load_model_with_fallback, local_path_or_uri, mounted_path
from mlflow_bucketfs_core.mounted import reads_over_http
logging.basicConfig()
root = os.environ["EXA_BUCKETFS_MOUNT_ROOT"] = tempfile.mkdtemp()
os.makedirs(f"{root}/s/b/d")
os.chmod(f"{root}/s", 0)
if os.geteuid() == 0:  # permissions do not apply to root
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
    """A mount behind a link, with entries that only an unpacked archive can have."""
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
    """A link out of the bucket or a named pipe is refused, with its path in the error."""
    settings = ConnectionSettings(mount_root=str(unsafe))
    with pytest.raises(UnsafeEntryError) as caught:
        mounted_path(f"{URI}/{path}", settings)
    assert str(caught.value).startswith(f"{unsafe}/bfsdefault/default/{path}")
    assert ("is not a regular file" if path == "pipe" else " leads to /") in str(caught.value)


def test_links_within_the_bucket_are_followed(unsafe):
    """Links within the bucket are followed, and so is a mount root that is a link."""
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
    """Only URIs with a host in ``mount_hosts`` have a mounted path."""
    settings = ConnectionSettings(mount_root=str(server.mount_root), mount_hosts=hosts)
    expected = f"{mounted}/bfsdefault/default/plain.gz" if found else None
    assert mounted_path(f"{URI}/plain.gz", settings) == expected


def test_local_path_or_uri(mounted):
    """The URI of a mounted file becomes its path; any other text is unchanged."""
    assert local_path_or_uri(f"{URI}/plain.gz") == f"{mounted}/bfsdefault/default/plain.gz"
    for text in (f"{URI}/missing", "s3://b/x", "/local", "exabfs", "runs:/1/model", ""):
        assert local_path_or_uri(text) == text


def test_a_bad_variable_is_reported(monkeypatch):
    """An invalid mount root raises an error, instead of counting as a missing mount."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", "relative")
    with pytest.raises(ConfigurationError, match="EXA_BUCKETFS_MOUNT_ROOT"):
        mounted_path(URI)


class Loader:
    """A loader of models that records its calls, and fails for some beginnings of paths."""

    def __init__(self, *failing):
        self.calls = []
        self._failing = failing

    def __call__(self, uri, **kwargs):
        """Return the URI or path as the model."""
        self.calls.append((uri, kwargs))
        if uri.startswith(self._failing or "\0"):
            raise RuntimeError(f"cannot load {uri}")
        return uri


def test_models_are_loaded_from_the_mount(mounted):
    """A mounted model is loaded once, by its path, with all arguments."""
    load = Loader()
    path = f"{mounted}/bfsdefault/default/models/churn"
    assert load_model_with_fallback(f"{URI}/models/churn", load, dst_path="x") == path
    assert load.calls == [(path, {"dst_path": "x"})]


def test_models_that_fail_on_the_mount_are_loaded_by_uri(mounted, caplog):
    """After a failure on the mount, which is logged, the model is loaded by its URI."""
    load = Loader(str(mounted))
    uri = f"{URI}/models/churn"
    with caplog.at_level(logging.WARNING):
        assert load_model_with_fallback(uri, load, dst_path="x") == uri
    assert [call[1] for call in load.calls] == [{"dst_path": "x"}] * 2
    assert "cannot load" in caplog.text


def test_both_failures_are_reported(mounted):
    """If both attempts fail, the second error is raised with the first as its context."""
    uri = f"{URI}/models/churn"
    with pytest.raises(RuntimeError, match=r"cannot load exa\+bfs") as caught:
        load_model_with_fallback(uri, Loader(str(mounted), "exa+bfs"))
    assert str(mounted) in str(caught.value.__context__)


def test_models_that_are_not_mounted_are_read_over_http(mounted, caplog):
    """A model that is missing in a mounted bucket is read over HTTP."""
    with caplog.at_level(logging.INFO):
        assert load_model_with_fallback(f"{URI}/missing", lambda _: mounted_path(URI)) is None
    assert mounted_path(URI) == f"{mounted}/bfsdefault/default"
    assert caplog.messages == [f"{URI}/missing is not mounted here: reading over HTTP"]


@pytest.mark.parametrize(("uri", "over_http"), [(f"{URI}/x", True), ("runs:/1/model", False)])
def test_other_uris_are_left_to_the_loader(mounted, uri, over_http):
    """Reading over HTTP is forced for URIs of BucketFS only."""
    seen = load_model_with_fallback(uri, lambda _: mounted_path(URI))
    assert seen == (None if over_http else f"{mounted}/bfsdefault/default")


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("uri", ["exa+bfs://db", "exa+bfs://db/s", "exa+bfs://w:p@db/s/b"])
def test_bad_uris_are_not_loaded(uri):
    """A malformed URI is refused without a call of the loader."""
    load = Loader()
    with pytest.raises(InvalidUriError):
        load_model_with_fallback(uri, load)
    assert load.calls == []


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("uri", [f"{URI}/missing", "runs:/1/model", "models:/m/1"])
def test_models_that_are_not_mounted_are_loaded_once(uri):
    """Without a mounted path there is only one attempt."""
    load = Loader("")
    with pytest.raises(RuntimeError):
        load_model_with_fallback(uri, load)
    assert [call[0] for call in load.calls] == [uri]


def test_the_second_attempt_ignores_the_mount(mounted):
    """No path counts as mounted during the second attempt; afterwards it does again."""
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
