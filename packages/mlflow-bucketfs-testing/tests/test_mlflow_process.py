"""`MlflowServerProcess` with the real ``mlflow server``, and `ExternalMlflowServer`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import urllib.request
from pathlib import Path

import psutil
import pytest
from mlflow_bucketfs_testing import (
    ExternalMlflowServer,
    MlflowServerDiedError,
    MlflowServerError,
    MlflowServerPortInUseError,
    MlflowServerProcess,
    MlflowServerTimeoutError,
    MlflowServerUnreachableError,
)
from mlflow_bucketfs_testing.errors import masked

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("nothing_left")

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="module")
def taken_ports():
    """Return the ports that were taken between the shared server's probe and its bind."""
    return []


@pytest.fixture(scope="module")
def server(taken_ports):
    """A running server shared by the tests; another socket has taken its first port."""
    thieves = []

    def steal_port(_elapsed_s):
        if not thieves:
            port = int(starting.uri.rpartition(":")[2])
            thieves.append(socket.create_server(("127.0.0.1", port)))
            taken_ports.append(port)

    starting = MlflowServerProcess(on_wait=steal_port, env={"EXTRA": "1", "HOME": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.invalid")
        patch.setenv("MLFLOW_WORKSPACE", "elsewhere")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "s3://elsewhere")
        starting.start()
    for thief in thieves:
        thief.close()
    yield starting
    starting.stop()


def call(uri, method, data=None):
    """Send a request to the server, with JSON or bytes, and return the body."""
    body = json.dumps(data).encode() if isinstance(data, dict) else data
    request = urllib.request.Request(uri, data=body, method=method)  # noqa: S310 -- our server
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return response.read()


def test_serves_experiments_and_artifacts(server):
    """A server without options keeps experiments and proxied artifacts in its directory."""
    api = f"{server.uri}/api/2.0"
    created = json.loads(call(f"{api}/mlflow/experiments/create", "POST", {"name": "first"}))
    call(f"{api}/mlflow-artifacts/artifacts/1/report.txt", "PUT", b"all well")

    assert created["experiment_id"] == "1"
    assert call(f"{api}/mlflow-artifacts/artifacts/1/report.txt", "GET") == b"all well"
    assert (server.directory / "mlflow.db").is_file()
    assert server.backend_store_uri == f"sqlite:///{server.directory}/mlflow.db"


def test_environment_of_the_server(server):
    """The server gets the given variables, and no MLflow variables of the calling process."""
    environment = psutil.Process(server.pid).environ()

    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_WORKSPACE", "HOME"} & environment.keys()
    assert "_MLFLOW_SERVER_ARTIFACT_ROOT" not in environment
    assert environment["EXTRA"] == "1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_lost_port_is_replaced(server, taken_ports):
    """If another process takes the free port before the server binds it, another one is used."""
    assert len(taken_ports) == 1
    assert server.uri.startswith("http://127.0.0.1:")
    assert not server.uri.endswith(f":{taken_ports[0]}")


def test_log_tail_is_the_end_of_the_log(server):
    """The log's tail has the requested number of lines."""
    assert server.log_tail(lines=3).count("\n") == 2
    assert server.log_tail(lines=3) in server.log_path.read_text(encoding="utf-8")


def test_cannot_be_started_twice(server):
    """A running server cannot be started again by the same object."""
    with pytest.raises(MlflowServerError, match="running already"):
        server.start()


def test_port_in_use_is_named_with_its_remedy(server):
    """A requested port that is in use is an error at once, with the port and a remedy."""
    port = int(server.uri.rpartition(":")[2])

    with pytest.raises(MlflowServerPortInUseError, match=f"Port {port} .* port=0"):
        MlflowServerProcess(port=port).start()


def test_foreign_address_is_refused():
    """An address that is not this machine's is refused, and the error names it."""
    with pytest.raises(MlflowServerError, match=r"192\.0\.2\.1"):
        MlflowServerProcess(host="192.0.2.1").start()


def test_backend_store_uri_is_shown_without_its_password():
    """The URI contains the password; its ``repr``, which pytest prints, masks it."""
    uri = MlflowServerProcess(backend_store_uri="postgresql://me:secret@db/x").backend_store_uri
    assert uri == "postgresql://me:secret@db/x"
    assert repr(uri) == "'postgresql://me:***@db/x'"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql"),
        ("postgresql+psycopg2://db/x?user=me&password=secret", "postgresql+psycopg2"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql+pyodbc"),
        ("postgresql://me:sec ret/@secret@db/x", "postgresql"),
        ("me:secret@db/x", "a directory"),
        (None, "sqlite"),
    ],
)
def test_repr_shows_the_kind_of_the_store_only(uri, shown):
    """``repr`` shows only the kind of the backend store, and no secret of its URI."""
    server = MlflowServerProcess(backend_store_uri=uri)
    assert repr(server) == f"<MlflowServerProcess not started, backend store: {shown}>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:p/w@secret@db/x", "postgresql://me:***@db/x"),
        ("'mysql://db/x?user=me&passwd=secret&ssl=1'", "'mysql://db/x?user=me&passwd=***&ssl=1'"),
        (
            "a://db/?sslpassword=secret b://db/?PWD=secret",
            "a://db/?sslpassword=*** b://db/?PWD=***",
        ),
        ("mssql:///?odbc_connect=PWD%3Dsecret", "mssql:///?odbc_connect=***"),
        (
            "http://h/x?access_token=secret;api_key=secret",
            "http://h/x?access_token=***;api_key=***",
        ),
        ("http://h/x?page=2&path=a@b", "http://h/x?page=2&path=a@b"),
    ],
)
def test_masked_hides_passwords_of_uris(text, shown):
    """Passwords are masked before the host and in the query; the rest is unchanged."""
    assert masked(text) == shown


def test_death_at_start_shows_command_and_log_without_secrets(tmp_path):
    """The error of a server that dies shows exit code, command and log, but no password."""
    dying = MlflowServerProcess(
        backend_store_uri="postgresql://me:secr%40et@db.invalid/mlflow",
        extra_args=["--no-such-option"],
        env={"EXA_BUCKETFS_PASSWORD": "bucket-secret"},
        directory=tmp_path / "kept",
    )

    with pytest.raises(MlflowServerDiedError) as caught:
        dying.start()

    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "-m mlflow server --host 127.0.0.1 --port" in message
    assert re.search("No such option:? '?--no-such-option", message)
    assert "postgresql://me:***@db.invalid/mlflow" in message
    assert "secr" not in message.replace("--app-name", "") + repr(dying)
    assert str(tmp_path / "kept" / "mlflow-server.log") in message
    assert (tmp_path / "kept" / "mlflow-server.log").is_file()


def test_slow_start_is_a_timeout():
    """A server that takes too long is ended, its directory removed, and the timeout reported."""
    waited = []
    slow = MlflowServerProcess(timeout_s=1, on_wait=waited.append)

    with pytest.raises(MlflowServerTimeoutError, match=r"within 1 s .*refused.*\n.*Command: "):
        slow.start()

    assert waited == sorted(waited)
    assert waited
    assert not slow.directory.exists()


def test_external_server_has_the_same_interface(server):
    """An external server has the same interface, and the end of the block does not stop it."""
    with ExternalMlflowServer(f"{server.uri}/") as external:
        assert external.uri == server.uri
        assert external.log_tail() == ""
        assert external.pid is None

    external.start()  # raises unless the server still answers


def test_external_server_that_does_not_answer_is_an_error():
    """A URL without a server is an error that contains the URL and the reason."""
    with pytest.raises(MlflowServerUnreachableError, match=r"127\.0\.0\.1:1/health: .*refused"):
        ExternalMlflowServer("http://127.0.0.1:1").start()


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "sqlite:///x.db", "http://u:secret@host:5000"])
def test_external_server_requires_a_plain_http_url(url):
    """Other URLs than http(s)://host[:port] are refused, without showing a password."""
    with pytest.raises(MlflowServerUnreachableError, match="not the URL") as caught:
        ExternalMlflowServer(url)

    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("bare_environment")
def test_example_with_mlflow_passes_on_a_running_server(pytester, server):
    """The documentation's example that uses MLflow in the test passes with ``--mlflow-server``."""
    shutil.copy(EXAMPLES / "test_in_process.py", pytester.path)

    result = pytester.runpytest_subprocess(f"--mlflow-server={server.uri}")

    result.assert_outcomes(passed=2)


def test_properties_need_a_started_server():
    """Before the start, access to URI, process or directory raises an error with the reason."""
    unstarted = MlflowServerProcess()

    assert "not started" in repr(unstarted)
    for name in ("uri", "directory", "log_path", "backend_store_uri"):
        with pytest.raises(MlflowServerError, match="was not started"):
            getattr(unstarted, name)
    with pytest.raises(MlflowServerError, match="not running"):
        unstarted.pid  # noqa: B018 -- it is the access that raises
    unstarted.stop()


def test_server_for_other_hosts_allows_its_names(tmp_path):
    """A server on another address accepts this address, the given names, and loopback."""
    # the working directory is first on the path of `python -m mlflow`
    recorder = tmp_path / "mlflow.py"
    recorder.write_text("import sys; print(sys.argv[1:]); raise SystemExit(3)", encoding="utf-8")
    serving = MlflowServerProcess(
        host="127.0.0.2", allowed_hosts=["host.docker.internal:*"], directory=tmp_path
    )

    with pytest.raises(MlflowServerDiedError, match="exit code 3") as caught:
        serving.start()

    names = (
        "host.docker.internal:*,127.0.0.2,127.0.0.2:*,localhost,localhost:*,127.0.0.1,127.0.0.1:*"
    )
    assert f"'--allowed-hosts', '{names}'" in str(caught.value)
