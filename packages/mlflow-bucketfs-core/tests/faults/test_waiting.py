"""``Retry-After``, stalls and slow answers: how long is waited, and for what."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from email.utils import format_datetime

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import TransferTimeoutError
from mlflow_bucketfs_testing.server import Fault

OPERATIONS = ["download", "exists", "list_keys", "upload_file", "upload_stream", "delete"]


@pytest.mark.parametrize(
    "retry_after",
    [
        pytest.param(lambda: 1, id="seconds"),
        pytest.param(
            lambda: format_datetime(
                dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2), usegmt=True
            ),
            id="date",
        ),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(server, prepared, retry_after, status):
    """The next try comes when the server said, not at once."""
    server.inject(Fault.status(status, retry_after=retry_after()))
    assert prepared.exists("d/small")
    first, second = server.requests
    assert second.started - first.started > 0.9


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "Fri, 01 Jan 99999 00:00:00 GMT",
        "Fri, 99 Foo 2020",
        "\u00fc".encode().hex(),
    ],
)
def test_odd_retry_after_is_ignored(server, prepared, tmp_path, value, download):
    """A header that says nothing is no reason to fail."""
    server.inject(Fault.status(503, retry_after=value))
    download(prepared, tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["3600", "9" * 30, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_retry_after_is_capped(server, start_python, value):
    """Nobody waits for longer than the budget of 60 s, whatever the server asks."""
    server.inject(Fault.status(429, retry_after=value, times=None))
    code = """
    import logging, sys
    logging.basicConfig(level=logging.DEBUG)
    from mlflow_bucketfs_core import Bucket, ConnectionSettings
    Bucket(sys.argv[1], ConnectionSettings()).keys()
    """
    process = start_python(code, server.uri())
    waits = (line for line in process.stderr if "Trying again" in line)
    assert "Trying again in 60.0 s" in next(waits)


@pytest.fixture
def impatient(own_server, prepare, settings):
    """A bucket that waits for a moment only, and tries twice."""
    short = replace(settings, transfer_timeout_s=0.4, max_retries=1)
    return prepare(Bucket(own_server.uri(), short), own_server)


@pytest.mark.parametrize(
    ("at", "operation"),
    [
        pytest.param("response", "download", id="response-download"),
        pytest.param("response", "list_keys", id="response-list"),
        pytest.param("response", "upload_file", id="response-upload"),
        pytest.param("response", "delete", id="response-delete"),
        pytest.param("body", "download", id="body-download"),
        pytest.param("body", "list_keys", id="body-list"),
        pytest.param("upload", "upload_large", id="upload"),
    ],
    indirect=["operation"],
)
def test_stalls_end_in_a_timeout(own_server, impatient, tmp_path, at, operation):
    """A server that goes silent is given up with an error that names the variable to set."""
    own_server.inject(Fault.stall(300, at=at, times=None))
    with pytest.raises(TransferTimeoutError, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"):
        operation(impatient, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"source"}


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
def test_one_stall_is_survived(own_server, impatient, tmp_path, operation):
    """A server that went silent once is asked again."""
    own_server.inject(Fault.stall(300))
    operation(impatient, tmp_path)
    operation.check(own_server, tmp_path)


def test_slow_is_not_stalled(server, prepare, settings, tmp_path, download):
    """The timeout is for silence: a slow trickle takes as long as it takes."""
    bucket = prepare(Bucket(server.uri(), replace(settings, transfer_timeout_s=0.4, max_retries=0)))
    server.inject(Fault.trickle(300_000))
    download(bucket, tmp_path)
    assert server.requests[0].duration_s > 0.8
