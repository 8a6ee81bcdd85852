"""Tests of error codes, which determine the HTTP status for MLflow's clients."""

from __future__ import annotations

import pickle
import re
import socket
import traceback

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

STATUSES = {
    401: ("UNAUTHENTICATED", "EXA_BUCKETFS_PASSWORD"),
    403: ("PERMISSION_DENIED", "EXA_BUCKETFS_USER"),
    423: ("TEMPORARILY_UNAVAILABLE", "locked"),
    429: ("REQUEST_LIMIT_EXCEEDED", "EXA_BUCKETFS_MAX_WORKERS"),
    500: ("TEMPORARILY_UNAVAILABLE", "answered 500"),
    503: ("TEMPORARILY_UNAVAILABLE", "answered 503"),
    302: ("INTERNAL_ERROR", "redirects"),
    418: ("INTERNAL_ERROR", "answered 418"),
}


def _log_stream(repo, local):
    with (local.write({"f": b"1"}) / "f").open("rb") as file:
        repo.log_artifact_from_stream(file, "f")


OPERATIONS = {
    "log_artifact": ("PUT", lambda repo, local: repo.log_artifact(local.write({"f": b"1"}) / "f")),
    "log_artifacts": ("PUT", lambda repo, local: repo.log_artifacts(local.write({"f": b"1"}))),
    "stream": ("PUT", _log_stream),
    "list": ("GET", lambda repo, _: repo.list_artifacts()),
    "download": ("GET", lambda repo, _: repo.download_artifacts("f")),
    "download one": ("GET", lambda repo, local: repo._download_file("f", local.root / "f")),
    "delete": ("DELETE", lambda repo, _: repo.delete_artifacts("f")),
}


@pytest.fixture(params=OPERATIONS)
def operation(request):
    """An HTTP method, and an operation of the repository that uses it; by default each of them."""
    return OPERATIONS[request.param]


@pytest.fixture(autouse=True)
def _one_retry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


# All operations share the mapping from status to code. So each of them is tested with two statuses,
# and each status with an operation that reads and one that writes.
@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ("log_artifact", 401),
        ("list", 401),
        ("log_artifacts", 403),
        ("download", 403),
        ("stream", 423),
        ("download one", 423),
        ("delete", 429),
        ("list", 429),
        ("log_artifact", 500),
        ("download", 500),
        ("log_artifacts", 503),
        ("download one", 503),
        ("stream", 302),
        ("list", 302),
        ("delete", 418),
        ("download", 418),
    ],
    indirect=["operation"],
)
def test_status(server, repo, local, operation, status):
    """Each HTTP status has one error code, for all operations."""
    server.put("root/f", b"1")
    method, use = operation
    code, remedy = STATUSES[status]
    server.inject(Fault.status(status, method=method, times=None))
    with pytest.raises(MlflowException, match=remedy) as caught:
        use(repo, local)
    assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("operation", "status", "reported"),
    [
        ("list", 401, False),
        ("log_artifact", 403, False),
        ("download one", 429, True),
        ("delete", 418, True),
        *((operation, 503, True) for operation in OPERATIONS),
    ],
    indirect=["operation"],
)
def test_a_tracking_server_logs_errors_that_clients_retry(  # noqa: PLR0917
    server, repo, local, operation, status, reported, monkeypatch, caplog
):
    """A tracking server logs errors that clients retry, because clients do not show the reason."""
    server.put("root/f", b"1")
    method, use = operation
    server.inject(Fault.status(status, method=method, times=None))
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", repo.artifact_uri)
    with pytest.raises(MlflowException) as caught:
        use(BucketFSArtifactRepository(repo.artifact_uri), local)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("mlflow_errors")]
    code = caught.value.get_http_status_code()
    assert lines == [f"Answering with status {code}: {caught.value}"] * reported


@pytest.mark.parametrize("operation", ["stream", "download", "delete"], indirect=True)
def test_timeout(server, repo, local, operation, monkeypatch):
    """A server that stalls is a timeout, reported with the variable that sets it."""
    server.put("root/f", b"1")
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "0.2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    repo = BucketFSArtifactRepository(repo.artifact_uri)
    method, use = operation
    server.inject(Fault.stall(60, method=method, times=None))
    with pytest.raises(MlflowException, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT") as caught:
        use(repo, local)
    assert caught.value.error_code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("operation", ["log_artifacts", "list", "delete"], indirect=True)
def test_lost_connection(server, repo, local, operation):
    """A connection that is lost every time has a code that MLflow's client retries."""
    server.put("root/f", b"1")
    method, use = operation
    server.inject(Fault.reset_before_body(method=method, times=None))
    with pytest.raises(MlflowException, match="connection was lost") as caught:
        use(repo, local)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("operation", ["log_artifact", "download one"], indirect=True)
def test_closed_port(local, operation):
    """A closed port is reported."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        repo = BucketFSArtifactRepository(f"exa+bfs://127.0.0.1:{port}/s/b/root")
        with pytest.raises(MlflowException, match="is the port right") as caught:
            operation[1](repo, local)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize(
    ("password", "code", "names"),
    [
        pytest.param("", "UNAUTHENTICATED", "EXA_BUCKETFS_PASSWORD", id="none"),
        pytest.param("wr0ng", "PERMISSION_DENIED", "EXA_BUCKETFS_USER", id="wrong"),
    ],
)
def test_private_bucket(make_server, monkeypatch, password, code, names):
    """A missing and a wrong password have different codes, and the password is not shown."""
    server = make_server(public=False)
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", password)
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    for use in (repo.list_artifacts, lambda: repo.download_artifacts("f")):
        with pytest.raises(MlflowException, match=names) as caught:
            use()
        assert caught.value.error_code == code
        assert "wr0ng" not in "".join(traceback.format_exception(caught.value))


def test_missing_bucket(server, local, operation):
    """A missing bucket is RESOURCE_DOES_NOT_EXIST, and is named."""
    repo = BucketFSArtifactRepository(server.uri().rpartition("/")[0] + "/nowhere/root")
    # the response about one object does not show whether the bucket exists
    named = r"no bucket 'nowhere'|/nowhere/root/f: there is no such object"
    with pytest.raises(MlflowException, match=named) as caught:
        operation[1](repo, local)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("operation", ["stream", "download"], indirect=True)
def test_https_spoken_to_http(server, local, operation):
    """HTTPS to a port for plain HTTP is reported."""
    repo = BucketFSArtifactRepository(server.uri(path="root").replace("exa+bfs:", "exa+bfss:"))
    with pytest.raises(MlflowException, match="does not speak HTTPS") as caught:
        operation[1](repo, local)
    assert caught.value.error_code == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("method", "statuses", "code"),
    [
        ("PUT", (403, 403, 403), "PERMISSION_DENIED"),
        ("PUT", (403, 503, 403), "INTERNAL_ERROR"),
        ("GET", (503, 423, 500), "TEMPORARILY_UNAVAILABLE"),
        ("GET", (302, 418, 302), "INTERNAL_ERROR"),
        ("DELETE", (403, 403, 403), "PERMISSION_DENIED"),
        ("DELETE", (403, 503, 403), "INTERNAL_ERROR"),
    ],
)
def test_aggregated_code(server, repo, local, method, statuses, code):  # noqa: PLR0917
    """Failures of several files have their common code, or INTERNAL_ERROR."""
    files = {f"f{number}": b"1" for number in range(len(statuses) + 2)}
    server.put_many((f"root/{name}", data) for name, data in files.items())
    server.inject(
        *(
            Fault.status(status, method=method, key=f"root/f{number}", times=None)
            for number, status in enumerate(statuses)
        )
    )
    use = {
        "PUT": lambda: repo.log_artifacts(local.write(files)),
        "GET": lambda: repo.download_artifacts(""),
        "DELETE": repo.delete_artifacts,
    }[method]
    with pytest.raises(MlflowException) as caught:
        use()
    assert caught.value.error_code == code
    assert str(caught.value).startswith("3 failure(s) while ")
    assert set(re.findall(r"\bf\d\b", str(caught.value))) == {"f0", "f1", "f2"}
    assert caught.value.__cause__ is not None


@pytest.fixture
def refused(server, local, monkeypatch):
    """Upload files with 4 threads and a wrong password; return the message."""

    def upload(files):
        monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "wr0ng")
        monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", "4")
        repo = BucketFSArtifactRepository(server.uri(path="root"))
        with pytest.raises(MlflowException) as caught:
            repo.log_artifacts(local.write(files))
        assert caught.value.error_code == "PERMISSION_DENIED"
        return str(caught.value)

    return upload


def test_a_rejected_password_stops_the_upload(server, refused):
    """After four rejections of the password, no further file is tried, and one line reports it."""
    message = refused({f"{number}": b"1" for number in range(300)} | {"MLmodel": b"m"})
    tried = server.requests.count(method="PUT")
    assert 4 <= tried <= 4 + 3  # uploads in progress at the fourth rejection
    assert message.startswith(f"{tried} failure(s) while uploading artifacts at exa+bfs://")
    assert message.count("access denied (403)") == 1
    assert f"\nNot tried, because it would have failed too: {300 - tried} file(s)\n" in message
    assert message.endswith("\nNot uploaded, because other files failed: MLmodel")
    assert "wr0ng" not in message


@pytest.mark.parametrize("workers", [1, 4])
def test_one_refused_file_does_not_stop_the_others(server, local, monkeypatch, workers):
    """One 403, as old versions of BucketFS send for a deleted path, does not stop other files."""
    monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", str(workers))
    server.inject(Fault.status(403, method="PUT", key="root/00", times=None))
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    with pytest.raises(MlflowException, match=r"^1 failure\(s\)"):
        repo.log_artifacts(local.write({f"{number:02}": b"1" for number in range(30)}))
    assert len(server.keys()) == 29


def test_failures_are_grouped_by_cause(server, repo, local):
    """Files with the same cause share a line with up to 100 names; others have their own."""
    files = {f"{number:03}": b"1" for number in range(300)}
    server.inject(Fault.status(418, method="PUT", key="root/007", times=None))
    server.inject(Fault.status(423, method="PUT", times=None))
    with pytest.raises(MlflowException) as caught:
        repo.log_artifacts(local.write(files))
    names = [name for name in files if name != "007"]
    first, most, one = str(caught.value).split("\n")
    assert first == f"300 failure(s) while uploading artifacts at {repo.artifact_uri}:"
    assert most.startswith(f"- {', '.join(names[:100])} and 199 more: the path is locked (423). ")
    assert one.startswith(f"- 007: Cannot upload {repo.artifact_uri}/007: ")


def test_local_failures_are_grouped_by_cause(repo, local):
    """Unreadable local files share a line."""
    directory = local.write({"a": b"1"})
    for name in ("b", "c"):
        (directory / name).symlink_to("nowhere")
    with pytest.raises(MlflowException) as caught:
        repo.log_artifacts(directory)
    assert str(caught.value).endswith("\n- b, c: No such file or directory")


def test_local_failures_are_internal_errors(repo, local):
    """Unreadable local files are INTERNAL_ERROR."""
    directory = local.write({"a": b"1"})
    (directory / "b").symlink_to("nowhere")
    (directory / "c").symlink_to("nowhere")
    with pytest.raises(MlflowException) as caught:
        repo.log_artifacts(directory)
    assert caught.value.error_code == "INTERNAL_ERROR"


def test_errors_can_be_pickled(server, repo):
    """An error keeps its message and code when it is pickled, as between worker processes."""
    server.inject(Fault.status(403, times=None))
    with pytest.raises(MlflowException) as caught:
        repo.list_artifacts()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own
    assert (str(copy), copy.error_code) == (str(caught.value), "PERMISSION_DENIED")
