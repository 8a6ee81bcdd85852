"""``Retry-After``, stalls and slow answers: how long is waited, and for what."""

from __future__ import annotations

import datetime as dt
import io
import logging
import threading
import time
from dataclasses import replace
from email.utils import format_datetime

import pytest
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    LockedError,
    ServerUnavailableError,
    TransferError,
    TransferTimeoutError,
)
from mlflow_bucketfs_core.transport.long_waits import LongWaits
from mlflow_bucketfs_core.transport.retrying import abandoned_by
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


def warnings_in(caplog):
    """The warnings so far."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_long_waits_are_told_once_for_many_files(own_server, settings, caplog, wait_until):
    """Twenty files that wait for the same reason are one line, with server, reason and time."""
    own_server.inject(Fault.status(503, retry_after=40, times=None))
    bucket = Bucket(own_server.uri(), settings)
    given_up = threading.Event()

    def ask(number):
        with abandoned_by(given_up), pytest.raises(ServerUnavailableError):
            bucket.exists(f"x{number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(own_server.requests) == 20)
    given_up.set()
    for thread in threads:
        thread.join()
    assert len(warnings_in(caplog)) == 1
    told = f"Waiting for 127.0.0.1:{own_server.port}, for up to 60 s more per file: Cannot download"
    assert told in warnings_in(caplog)[0]
    assert "answered 503" in warnings_in(caplog)[0]
    assert "write" not in warnings_in(caplog)[0]


def test_short_waits_are_not_told(own_server, prepare, settings, caplog):
    """What passes within a moment is nobody's business."""
    bucket = prepare(Bucket(own_server.uri(), settings), own_server)
    own_server.inject(Fault.status(503, times=2), Fault.status(429, retry_after=1))
    assert bucket.exists("d/small")
    assert warnings_in(caplog) == []


def test_the_same_wait_is_told_again_after_a_while(caplog):
    """Another server and another reason are news; the same is again after the time given."""
    waits = LongWaits(tell_every_s=2)
    busy = ServerUnavailableError("busy")
    for authority, error in (("a:1", busy), ("b:1", busy), ("a:1", LockedError("locked"))) * 3:
        waits.tell(authority, error, 50)
    assert len(warnings_in(caplog)) == 3
    time.sleep(2)
    for _ in range(3):
        waits.tell("a:1", busy, 20.4)
    assert warnings_in(caplog)[3:] == ["Waiting for a:1, for up to 20 s more per file: busy"]


def test_abandoned_downloads_end_within_the_file(server, prepared, tmp_path):
    """Nobody waits for the rest of a large file, and nothing of it is left."""
    server.put("d/large", bytes(20 << 20))
    server.inject(Fault.trickle(1 << 20))  # the whole takes 20 seconds
    given_up = threading.Event()
    timer = threading.Timer(0.3, given_up.set)
    timer.start()
    started = time.monotonic()
    with abandoned_by(given_up), pytest.raises(TransferError, match="abandoned"):
        prepared.download_file("d/large", tmp_path / "x")
    assert time.monotonic() - started < 10
    timer.join()
    assert list(tmp_path.iterdir()) == []


def test_abandoned_uploads_end_within_the_file(server, prepared):
    """What nobody wants any more is not sent to its end, and not stored."""
    given_up = threading.Event()

    class GivenUpAmidReading(io.BytesIO):
        def read(self, amount=-1):
            if self.tell() > (4 << 20):
                given_up.set()
            return super().read(amount)

    with abandoned_by(given_up), pytest.raises(TransferError, match="abandoned"):
        prepared.upload_fileobj("d/large", GivenUpAmidReading(bytes(20 << 20)))
    assert "d/large" not in server.keys()


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
