"""Tests of the hosts that may receive the password."""

from __future__ import annotations

import re
import socket

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.errors import HostNotAllowedError
from mlflow_bucketfs_plugin.host_policy import apply_host_policy
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault

ROOT, DESTINATION = "_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
ALLOWED = "EXA_BUCKETFS_ALLOWED_HOSTS"
SCHEMES = "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES"
OWN = "exa+bfs://bfs.example.com:2580/s/b/root"


def is_allowed(uri, environ):
    """Return whether a process with this environment accepts a location."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"EXA_BUCKETFS_PASSWORD": "secret", **environ}.items():
            environment.setenv(name, value)
        try:
            apply_host_policy(BucketFSUri.parse(uri), ConnectionSettings.from_env())
        except HostNotAllowedError:
            return False
    return True


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        pytest.param("exa+bfs://bfs.example.com:2580/s/other", True, id="same"),
        pytest.param("exa+bfs://BFS.Example.COM:2580/s/b", True, id="upper case"),
        pytest.param("EXA+BFS://bfs.example.com:2580/s/b", True, id="upper-case scheme"),
        pytest.param("exa+bfs://bfs.example.com/s/b", True, id="default port"),
        pytest.param("exabfs://bfs.example.com/s/b", True, id="alias"),
        pytest.param("exa+bfss://bfs.example.com:2580/s/b", True, id="HTTPS to the same port"),
        pytest.param("exa+bfss://bfs.example.com/s/b", False, id="default port of HTTPS"),
        pytest.param("exa+bfs://bfs.example.com:2581/s/b", False, id="other port"),
        pytest.param("exa+bfs://bfs.example.com:25800/s/b", False, id="longer port"),
        pytest.param("exa+bfs://evil.com/s/b", False, id="other host"),
        pytest.param("exa+bfs://evil.com/bfs.example.com:2580/b", False, id="host in the path"),
        pytest.param("exa+bfs://bfs.example.com.evil.com/s/b", False, id="longer host"),
        pytest.param("exa+bfs://example.com/s/b", False, id="domain"),
        pytest.param("exa+bfs://x.bfs.example.com/s/b", False, id="subdomain"),
        pytest.param("exa+bfs://bfs.example.com.:2580/s/b", False, id="trailing dot"),
        pytest.param("exa+bfs://[::1]:2580/s/b", False, id="IPv6"),
    ],
)
def test_server_trusts_its_own_host_and_port(uri, allowed):
    """A tracking server connects to the host and port of its own root or destination only."""
    assert is_allowed(uri, {ROOT: OWN}) is allowed
    assert is_allowed(uri, {DESTINATION: OWN}) is allowed


@pytest.mark.parametrize(
    "uri",
    [
        "exa+bfs://bfs.example.com:2580@evil.com/s/b",
        "exa+bfs://evil.com#@bfs.example.com:2580/s/b",
        "exa+bfs://evil.com?@bfs.example.com:2580/s/b",
        "exa+bfs://evil.com\\@bfs.example.com:2580/s/b",
        "exa+bfs://bfs.example.com:2580\\@evil.com/s/b",
        "exa+bfs://bfs.example.com:2580\\.evil.com/s/b",
        "exa+bfs://evil.com bfs.example.com:2580/s/b",
        "exa+bfs://bfs.example.com:2580 /s/b",
        "exa+bfs://bfs.example.com:2580:80/s/b",
        "exa+bfs://bfs.example.com%00.evil.com/s/b",
        "exa+bfs:///bfs.example.com/s/b",
        "exa+bfs:\\\\bfs.example.com/s/b",
        "exa+bfs://b\u017fs.example.com/s/b",
        "exa+bfs://[::1/s/b",
        "exa+bfs://evil.com/@bfs.example.com:2580",
    ],
    ids=repr,
)
def test_disguised_hosts_are_no_uris(environment, uri):
    """A URI that parsers could read as different hosts is refused before any comparison."""
    environment.setenv(ROOT, OWN)
    with pytest.raises(MlflowException) as caught:
        BucketFSArtifactRepository(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("own", "uri", "allowed"),
    [
        ("exa+bfs://h/s/b", "exa+bfs://h:2580/s/b", True),
        ("exa+bfss://h/s/b", "exa+bfss://h:2581/s/b", True),
        ("exa+bfss://h/s/b", "exa+bfs://h/s/b", False),
        ("exa+bfss://h:9/s/b", "exa+bfss://h:9/s/b", True),
        ("exa+bfss://h:9/s/b", "exabfss://h:9/s/b", True),
        ("exa+bfss://h:9/s/b", "exa+bfs://h:9/s/b", False),
        ("exa+bfss://h:9/s/b", "exabfs://h:9/s/b", False),
        ("exabfss://h:9/s/b", "exabfs://h:9/s/b", False),
        ("exabfs://h:9/s/b", "exa+bfs://h:9/s/b", True),
        ("exa+bfs://[::1]/s/b", "exa+bfs://[0:0:0:0:0:0:0:1]:2580/s/b", True),
        ("exa+bfs://[::1]/s/b", "exa+bfs://[::2]/s/b", False),
        ("exa+bfs://127.0.0.1/s/b", "exa+bfs://localhost/s/b", False),
        ("s3://h/s/b", "exa+bfs://h/s/b", False),
        ("./mlruns", "exa+bfs://h/s/b", False),
        ("", "exa+bfs://h/s/b", False),
        ("exa+bfs://w:pw@h/s/b", "exa+bfs://h/s/b", False),
        ("exa+bfs://", "exa+bfs://h/s/b", False),
    ],
)
def test_own_hosts(own, uri, allowed):
    """Own hosts have a protocol and a port; a root that is not a BucketFS URI allows none."""
    assert is_allowed(uri, {ROOT: own}) is allowed


@pytest.mark.parametrize(
    ("listed", "uri", "allowed"),
    [
        ("exa+bfs://h", "exa+bfs://h/s/b", True),
        ("h", "exa+bfs://h/s/b", False),
        ("h", "exa+bfss://H:2581/s/b", True),
        ("h", "exa+bfss://h:9/s/b", False),
        ("exa+bfs://h:9", "exabfs://h:9/s/b", True),
        ("h:9", "exa+bfs://h:9/s/b", False),
        ("h:9", "exa+bfss://h/s/b", False),
        ("other , H:9", "exabfss://h:9/s/b", True),
        ("[::1]:9", "exa+bfss://[0::1]:9/s/b", True),
        ("[::1]", "exa+bfss://[::1]:9/s/b", False),
        ("h.", "exa+bfss://h/s/b", False),
    ],
)
def test_allowed_hosts_hold_everywhere(listed, uri, allowed):
    """The operator's list adds to a server's own hosts, and restricts any other process."""
    for in_server in (True, False):
        environ = {ALLOWED: listed, **({ROOT: OWN} if in_server else {})}
        assert is_allowed(uri, environ) is allowed
        assert is_allowed(OWN, environ) is in_server


def test_clients_without_a_list_may_use_all_hosts():
    """A process that is not a server may use all hosts, unless it has a list."""
    assert is_allowed("exa+bfs://anywhere:1/s/b", {})
    assert is_allowed("exa+bfs://anywhere:1/s/b", {SCHEMES: ""})


@pytest.mark.parametrize(
    ("schemes", "uri", "allowed"),
    [
        ("exa+bfs", "exa+bfs://anywhere:1/s/b", True),
        ("hdfs, EXA+BFS", "exa+bfs://anywhere:1/s/b", True),
        ("exa+bfs", "exa+bfss://anywhere:1/s/b", False),
        ("exa+bfs", "exabfs://anywhere:1/s/b", False),
        ("hdfs", "exa+bfs://anywhere:1/s/b", False),
        ("", "exa+bfs://anywhere:1/s/b", False),
    ],
)
def test_operator_opens_a_scheme(schemes, uri, allowed):
    """MLflow's own variable allows exactly the schemes in it."""
    assert is_allowed(uri, {ROOT: OWN, SCHEMES: schemes}) is allowed


@pytest.mark.parametrize(
    ("listed", "uri", "allowed"),
    [
        ("h:9", "exa+bfs://anywhere:1/s/b", False),
        ("h:9", "exa+bfs://h:9/s/b", False),
        ("exa+bfs://h:9", "exa+bfs://h:9/s/b", True),
        ("h:9", OWN, True),
        (",", "exa+bfs://anywhere:1/s/b", False),
    ],
)
def test_the_list_holds_for_allowed_schemes(listed, uri, allowed):
    """A scheme allowed in MLflow does not disable the operator's list of hosts."""
    assert is_allowed(uri, {ROOT: OWN, SCHEMES: "exa+bfs", ALLOWED: listed}) is allowed


USES = {
    "list": lambda repo, _: repo.list_artifacts(),
    "download": lambda repo, _: repo.download_artifacts("f"),
    "log": lambda repo, local: repo.log_artifact(local.write({"f": b"1"}) / "f"),
    "delete": lambda repo, _: repo.delete_artifacts("f"),
}


@pytest.mark.parametrize(
    ("by", "use"), [("server", "download"), ("server", "log"), ("list", "list"), ("list", "delete")]
)
def test_second_listener_sees_no_connection(make_server, environment, local, by, use):
    """Another port of an allowed host gets no connection, and the error names a remedy."""
    own, foreign = make_server(), make_server()
    if by == "server":
        environment.setenv(ROOT, own.uri(path="mlflow"))
    else:
        environment.setenv(ALLOWED, f"exa+bfs://127.0.0.1:{own.port}")
    own.put("root/f", b"1")
    USES[use](get_artifact_repository(own.uri(path="root")), local)
    own.requests.clear()
    with pytest.raises(MlflowException, match=f"127.0.0.1:{foreign.port}.*{ALLOWED}") as caught:
        USES[use](get_artifact_repository(foreign.uri(path="root")), local)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert foreign.requests.connections == own.requests.connections == 0


@pytest.mark.parametrize("scheme", ["exa+bfs", "exabfs"])
@pytest.mark.parametrize("by", ["root", "list", "list and scheme"])
def test_nothing_goes_unencrypted_to_a_host_for_https(environment, local, by, scheme):
    """A client's location at the server's own host and port, without TLS, gets no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        environment.setenv(ROOT, f"exa+bfss://{address}/s/b" if by == "root" else OWN)
        if by != "root":
            environment.setenv(ALLOWED, address)
        if by == "list and scheme":
            environment.setenv(SCHEMES, scheme)
        get_artifact_repository(f"{scheme}s://{address}/s/b")
        for use in USES.values():
            remedy = re.escape(f"add exa+bfs://{address} to {ALLOWED}")
            with pytest.raises(MlflowException, match=remedy) as caught:
                use(get_artifact_repository(f"{scheme}://{address}/s/b"), local)
            assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_redirect_is_not_followed(make_server, local, use):
    """A redirect to another host is refused, without a connection to that host."""
    own, foreign = make_server(), make_server()
    own.put("root/f", b"1")
    own.inject(Fault.status(307, location=f"{foreign.url}/x/f", times=None))
    with pytest.raises(MlflowException, match="redirects elsewhere"):
        use(get_artifact_repository(own.uri(path="root")), local)
    assert foreign.requests.connections == 0


def test_further_host_is_logged_once(make_server, environment, caplog):
    """Without a list, each further host that a location names is logged once."""
    first, second = (make_server().uri(path="root") for _ in range(2))
    get_artifact_repository(first)
    caplog.clear()
    for _ in range(2):
        get_artifact_repository(second)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "/".join(second.split("/")[:3]) in record.getMessage()
    assert ALLOWED in record.getMessage()
    assert "write" not in record.getMessage()
    caplog.clear()
    get_artifact_repository(second.replace("exa+bfs:", "exa+bfss:"))
    assert len(caplog.records) == 1
    environment.delenv("EXA_BUCKETFS_PASSWORD")
    caplog.clear()
    get_artifact_repository(make_server().uri())
    assert not caplog.records
