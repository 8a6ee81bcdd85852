"""Error codes: what MLflow's clients see as HTTP status, and act on."""

from __future__ import annotations

import pickle
import socket
import traceback

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

STATUSES = [
    (401, "UNAUTHENTICATED", "EXA_BUCKETFS_PASSWORD"),
    (403, "PERMISSION_DENIED", "EXA_BUCKETFS_USER"),
    (423, "TEMPORARILY_UNAVAILABLE", "locked"),
    (429, "REQUEST_LIMIT_EXCEEDED", "EXA_BUCKETFS_MAX_WORKERS"),
    (500, "TEMPORARILY_UNAVAILABLE", "answered 500"),
    (503, "TEMPORARILY_UNAVAILABLE", "answered 503"),
    (302, "INTERNAL_ERROR", "redirects"),
    (418, "INTERNAL_ERROR", "answered 418"),
]


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


@pytest.fixture(params=OPERATIONS.values(), ids=OPERATIONS)
def operation(request):
    """A method of HTTP and a use of the repository that depends on it."""
    return request.param


@pytest.fixture(autouse=True)
def _one_retry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@pytest.mark.parametrize(("status", "code", "remedy"), STATUSES)
def test_status(server, repo, local, operation, status, code, remedy):  # noqa: PLR0917
    """Each status that a server may answer with has one code, whatever was asked."""
    server.put("root/f", b"1")
    method, use = operation
    server.inject(Fault.status(status, method=method, times=None))
    with pytest.raises(MlflowException, match=remedy) as caught:
        use(repo, local)
    assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("status", "told"), [(401, False), (403, False), (429, True), (418, True), (503, True)]
)
def test_a_tracking_server_logs_what_clients_try_again(  # noqa: PLR0917
    server, repo, local, operation, status, told, monkeypatch, caplog
):
    """MLflow's clients say "too many 503 error responses" at last, so the log must have why."""
    server.put("root/f", b"1")
    method, use = operation
    server.inject(Fault.status(status, method=method, times=None))
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", repo.artifact_uri)
    with pytest.raises(MlflowException) as caught:
        use(BucketFSArtifactRepository(repo.artifact_uri), local)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("mlflow_errors")]
    code = caught.value.get_http_status_code()
    assert lines == [f"Answering with status {code}: {caught.value}"] * told


def test_silence(server, repo, local, operation, monkeypatch):
    """A server that stops answering is a timeout, told with the variable that sets it."""
    server.put("root/f", b"1")
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "0.2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    repo = BucketFSArtifactRepository(repo.artifact_uri)
    method, use = operation
    server.inject(Fault.stall(60, method=method, times=None))
    with pytest.raises(MlflowException, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT") as caught:
        use(repo, local)
    assert caught.value.error_code == "DEADLINE_EXCEEDED"


def test_lost_connection(server, repo, local, operation):
    """A connection that is lost every time is for MLflow's client to try again."""
    server.put("root/f", b"1")
    method, use = operation
    server.inject(Fault.reset_before_body(method=method, times=None))
    with pytest.raises(MlflowException, match="connection was lost") as caught:
        use(repo, local)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_nobody_listens(local, operation):
    """A wrong port is told as such."""
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
    """No password for a private bucket and a wrong one are told apart, without repeating it."""
    server = make_server(public=False)
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", password)
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    for use in (repo.list_artifacts, lambda: repo.download_artifacts("f")):
        with pytest.raises(MlflowException, match=names) as caught:
            use()
        assert caught.value.error_code == code
        assert "wr0ng" not in "".join(traceback.format_exception(caught.value))


def test_missing_bucket(server, local, operation):
    """A bucket that does not exist is not found, and named."""
    repo = BucketFSArtifactRepository(server.uri().rpartition("/")[0] + "/nowhere/root")
    with pytest.raises(MlflowException, match="nowhere") as caught:
        operation[1](repo, local)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_https_spoken_to_http(server, local, operation):
    """The wrong scheme is told as such, at once."""
    repo = BucketFSArtifactRepository(server.uri(path="root").replace("exa+bfs:", "exa+bfss:"))
    with pytest.raises(MlflowException, match="does not speak HTTPS") as caught:
        operation[1](repo, local)
    assert caught.value.error_code == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((403, 403, 403), "PERMISSION_DENIED"),
        ((503, 423, 500), "TEMPORARILY_UNAVAILABLE"),
        ((403, 503, 403), "INTERNAL_ERROR"),
        ((302, 418, 302), "INTERNAL_ERROR"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_aggregated_code(server, repo, local, method, statuses, code):  # noqa: PLR0917
    """Failures of several files have the code that all share, else INTERNAL_ERROR."""
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
    assert all(f"f{number}: Cannot" in str(caught.value) for number in range(3))
    assert caught.value.__cause__ is not None


def test_local_failures_are_internal_errors(repo, local):
    """A file that cannot be read is nobody's HTTP status."""
    directory = local.write({"a": b"1"})
    (directory / "b").symlink_to("nowhere")
    (directory / "c").symlink_to("nowhere")
    with pytest.raises(MlflowException) as caught:
        repo.log_artifacts(directory)
    assert caught.value.error_code == "INTERNAL_ERROR"


def test_errors_can_be_pickled(server, repo):
    """Whoever runs MLflow in worker processes gets the error back from them."""
    server.inject(Fault.status(403, times=None))
    with pytest.raises(MlflowException) as caught:
        repo.list_artifacts()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own
    assert (str(copy), copy.error_code) == (str(caught.value), "PERMISSION_DENIED")
