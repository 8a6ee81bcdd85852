"""`ExternalMlflowServer`, the twin for a server that somebody else started."""

from __future__ import annotations

import pytest
from mlflow_bucketfs_testing import ExternalMlflowServer, MlflowServerUnreachableError
from mlflow_bucketfs_testing.mlflow_health import health_problem


def test_external_twin_is_used_alike(mlflow_server):
    """A server that runs already has the same interface, and leaving it does not stop it."""
    with ExternalMlflowServer(f"{mlflow_server.uri}/") as external:
        assert external.uri == mlflow_server.uri
        assert external.log_tail() == ""
        assert external.pid is None

    assert health_problem(mlflow_server.uri) is None


def test_external_twin_without_a_server_is_an_error():
    """An URL where nothing answers is an error which names it and the reason."""
    with pytest.raises(MlflowServerUnreachableError, match=r"127\.0\.0\.1:1/health: .*refused"):
        ExternalMlflowServer("http://127.0.0.1:1").start()


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "sqlite:///x.db", "http://u:secret@host:5000"])
def test_external_twin_wants_a_plain_http_url(url):
    """Anything but http(s)://host[:port] is refused, without showing a password."""
    with pytest.raises(MlflowServerUnreachableError, match="not the URL") as caught:
        ExternalMlflowServer(url)

    assert "secret" not in str(caught.value)
