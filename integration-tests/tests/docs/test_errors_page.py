"""The page of errors has every class, its code, and the real messages."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import mlflow_bucketfs_testing as testing
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import handlers
from mlflow.store.artifact.artifact_repository_registry import (
    ArtifactRepositoryRegistry,
    get_artifact_repository,
)
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings, errors
from mlflow_bucketfs_core.hosts import parse_host_list
from mlflow_bucketfs_core.mounted import mounted_path
from mlflow_bucketfs_plugin.mlflow_errors import mlflow_errors
from mlflow_bucketfs_testing import BucketConfig, BucketFSServer, Fault, server
from mlflow_bucketfs_testing import errors as testing_errors

_PAGE = (Path(__file__).parents[3] / "docs" / "user" / "errors.md").read_text(encoding="utf-8")
_HOST = "db.example.com"


def _errors_of(module) -> dict[str, type[Exception]]:
    defined = inspect.getmembers(module, inspect.isclass)
    return {name: kind for name, kind in defined if issubclass(kind, Exception)}


_CLASSES = _errors_of(errors)


def _table_rows(text: str) -> dict[str, list[str]]:
    """Return for each class, which is in the first cell, the other cells."""
    rows = {}
    for line in text.splitlines():
        if match := re.match(r"\| *\[?`(\w+Error)`[^|]*\|(.*)\|$", line):
            rows[match[1]] = [cell.strip().strip("`") for cell in match[2].split("|")]
    return rows


def _section(name: str) -> str:
    return _PAGE.split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]


_TABLE = _table_rows(_PAGE.split("\n## Errors of names and settings\n", maxsplit=1)[0])


def test_the_table_has_exactly_the_classes_of_core():
    """The table has exactly the classes of core, and all but the base classes have a section."""
    assert _TABLE.keys() == _CLASSES.keys() - {"BucketFSError"}
    sections = set(re.findall(r"^### (\w+Error)$", _PAGE, re.MULTILINE))
    assert sections == _CLASSES.keys() - {"BucketFSError", "TransferError"}


@pytest.mark.parametrize("name", _TABLE)
def test_bases_code_and_status_are_the_real_ones(name):
    """The table has each class's built-in base, MLflow's code and its HTTP status."""
    builtin, code, status = _TABLE[name]
    direct = [base.__name__ for base in _CLASSES[name].__mro__ if base.__module__ == "builtins"]
    with pytest.raises(MlflowException) as raised, mlflow_errors():
        raise _CLASSES[name]("why")
    actual = raised.value.error_code, str(raised.value.get_http_status_code())
    assert (direct[0], *actual) == (builtin, code, status)


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        pytest.param("Errors of mlflow-bucketfs-testing", "(?!Slc|Udf)", id="servers"),
        pytest.param("Errors of script-language containers", "Slc", id="slc"),
        pytest.param("Errors of UDFs without a database", "Udf", id="udf"),
    ],
)
def test_the_tables_of_the_tests_errors_are_complete(heading, names):
    """The tables have each class of the tests' errors, with its built-in base."""
    rows = _table_rows(_PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0])
    both = {**_errors_of(testing_errors), **_errors_of(server)}
    classes = {name: kind for name, kind in both.items() if re.match(names, name)}
    assert rows.keys() == classes.keys()
    for name, (builtin, *_) in rows.items():
        bases = [base.__name__ for base in classes[name].__bases__ if base.__module__ == "builtins"]
        assert bases == [builtin] * bool(builtin)
    public = set(_errors_of(testing)) | {n for n in testing.__all__ if n.endswith("Error")}
    assert public <= _table_rows(_PAGE).keys()


@pytest.fixture(scope="module")
def shared_bucketfs():
    """A BucketFS with a public and a private bucket, also over HTTPS."""
    buckets = [BucketConfig("default"), BucketConfig("private", public=False)]
    with BucketFSServer(buckets, tls_port=0) as running:
        yield running


@pytest.fixture
def bucketfs(shared_bucketfs):
    """The shared BucketFS, empty and without faults."""
    shared_bucketfs.reset()
    return shared_bucketfs


def _bucket(root: str, name: str = "default", **settings) -> Bucket:
    quick = {"password": "write", "max_retries": 1, "backoff_factor": 0.0, "backoff_jitter": 0.0}
    service = root.rpartition("/")[0]
    return Bucket(f"{service}/{name}", ConnectionSettings(**{**quick, **settings}))


def _not_allowed(running):
    _bucket(running.uri(), allowed_hosts=parse_host_list("10.0.0.11", variable="x"))


def _blocked(running):
    running.put("d", b"a file")
    _bucket(running.uri()).upload_bytes("d/x", b"1")


def _unsafe(name, make):
    def provoke(_):
        bucket = Path.cwd() / "buckets" / "bfsdefault" / "default"
        (bucket / name).parent.mkdir(parents=True)
        make(bucket / name)
        settings = ConnectionSettings(mount_root=str(Path.cwd() / "buckets"))
        mounted_path(f"exa+bfs://{_HOST}/bfsdefault/default/{name}", settings)

    return provoke


def _with_fault(fault, use, **settings):
    def provoke(running):
        running.put("x", b"content")
        running.inject(fault)
        use(_bucket(running.uri(), **settings))

    return provoke


def _list(bucket):
    bucket.keys()


def _upload(bucket):
    bucket.upload_bytes("x", b"1")


def _download(bucket):
    list(bucket.iter_content("x"))


def _download_file(bucket):
    # any directory, because no file is written
    bucket.download_file("x", Path("never"))


# Per class, the functions that provoke the messages in its section.
_MESSAGES = {
    "InvalidUriError": [
        lambda _: BucketFSUri.parse("exa+bfs://w:secret@db.example.com/bfsdefault/default")
    ],
    "InvalidKeyError": [lambda b: _bucket(b.uri()).upload_bytes("models/../x", b"1")],
    "ConfigurationError": [
        lambda _: ConnectionSettings.from_env({"EXA_BUCKETFS_MAX_WORKERS": "many"})
    ],
    "HostNotAllowedError": [_not_allowed],
    "MissingCredentialsError": [lambda b: _upload(_bucket(b.uri(), password=None))],
    "UnsafeEntryError": [
        _unsafe("d/x", lambda path: path.symlink_to("/etc/passwd")),
        _unsafe("pipe", os.mkfifo),
    ],
    "AuthenticationError": [lambda b: _list(_bucket(b.uri(), "private", password=None))],
    "AccessDeniedError": [lambda b: _upload(_bucket(b.uri(), password="wrong"))],
    "ObjectNotFoundError": [lambda b: _download(_bucket(b.uri()))],
    "BucketNotFoundError": [
        lambda b: _list(_bucket(b.uri(), "nothing")),
        lambda b: _list(_bucket(b.uri().replace("bfsdefault", "default"), "mlflow")),
    ],
    "PathBlockedError": [_blocked],
    "TransferTimeoutError": [
        _with_fault(Fault.stall(60, times=None), _download, max_retries=0, transfer_timeout_s=0.2)
    ],
    "ServerUnavailableError": [
        _with_fault(Fault.status(503, times=None), _list),
        lambda b: _list(_bucket(b.uri().replace(f":{b.port}", ":9"))),
    ],
    "TlsError": [
        lambda b: _list(_bucket(b.tls_uri())),
        lambda b: _list(_bucket(b.tls_uri(), cert_fingerprint="0" * 64)),
        lambda b: _list(_bucket(b.uri().replace(f":{b.port}", f":{b.tls_port}"))),
        lambda b: _list(_bucket(b.tls_uri().replace(f":{b.tls_port}", f":{b.port}"))),
    ],
    "LockedError": [_with_fault(Fault.status(423, method="PUT", times=None), _upload)],
    "RateLimitedError": [_with_fault(Fault.status(429, times=None), _list)],
    "IncompleteTransferError": [_with_fault(Fault.truncate(3, times=None), _download_file)],
    "UnexpectedResponseError": [_with_fault(Fault.status(302), _list)],
}


def _as_documented(message: str, running) -> str:
    """Return a message with the addresses of the documentation."""
    message = message.replace(f"{Path.cwd()}/", "/")
    message = message.replace(f"127.0.0.1:{running.tls_port}", f"{_HOST}:2581")
    return re.sub(r"127\.0\.0\.1:\d+", f"{_HOST}:2580", message)


def _matches(documented: str, message: str) -> bool:
    """Return whether a text of the page, in which … matches any text, is this message."""
    return re.fullmatch(re.escape(documented).replace("…", ".*"), message, re.DOTALL) is not None


def test_every_section_has_its_messages_here():
    """Each message that a section shows is provoked by one function here."""
    shown = {name: _section(name).count("```text\n") for name in _TABLE if name != "TransferError"}
    assert shown == {name: len(provoked) for name, provoked in _MESSAGES.items()}


@pytest.mark.parametrize(
    ("name", "index"),
    [(name, index) for name, provoked in _MESSAGES.items() for index in range(len(provoked))],
)
def test_the_message_is_the_real_one(name, index, bucketfs, tmp_path, monkeypatch):
    """The message on the page is the one that BucketFS or the settings really raise."""
    monkeypatch.chdir(tmp_path)
    documented = re.findall(r"```text\n(.*?)\n```", _section(name), re.DOTALL)[index]
    with pytest.raises(errors.BucketFSError) as raised:
        _MESSAGES[name][index](bucketfs)
    assert type(raised.value) is _CLASSES[name]
    message = _as_documented(str(raised.value), bucketfs)
    assert _matches(documented, message), message


def _nothing_there(directory, running, monkeypatch):
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("e", artifact_location=running.uri()))
    client.download_artifacts(run.info.run_id, "a")


@pytest.mark.parametrize(
    ("heading", "provoke"),
    [
        (
            "Could not find a registered artifact repository",
            # MLflow's registry before it searches for plugins
            lambda *_: ArtifactRepositoryRegistry().get_artifact_repository(
                f"exa+bfs://{_HOST}:2580/bfsdefault/default"
            ),
        ),
        (
            "Invalid model version source",
            lambda *_: handlers._validate_non_local_source_contains_relative_paths(
                f"exa+bfs://{_HOST}:2580/bfsdefault/default/model"
            ),
        ),
        (
            "exa+saas:// is not supported yet",
            lambda *_: get_artifact_repository("exa+saas://db.example.com/x"),
        ),
        ("Failed to download artifacts from path", _nothing_there),
    ],
)
def test_the_message_of_mlflow_is_the_real_one(heading, provoke, bucketfs, tmp_path, monkeypatch):
    """The message on the page is the one that this version of MLflow raises."""
    (documented,) = re.findall(r"```text\n(.*?)\n```", _section(heading), re.DOTALL)
    with pytest.raises(MlflowException) as raised:
        provoke(tmp_path, bucketfs, monkeypatch)
    assert _matches(documented, str(raised.value)), str(raised.value)
