"""``Retry-After``, stalls and slow responses: duration of waits, and warnings about them."""

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
from mlflow_bucketfs_core.http.retry import LongWaits, abandoned_by
from mlflow_bucketfs_testing.server import Fault

OPERATIONS = ["download", "exists", "list_keys", "upload_file", "upload_stream", "delete"]


class GivesUpAtOnce(threading.Event):
    """An event that abandons an operation at its first wait, and records the wait."""

    wait_s = None

    def wait(self, timeout=None):
        """Return ``True``, as if the event had been set."""
        self.wait_s = timeout
        return True


@pytest.fixture
def planned_wait_s(server, prepared):
    """Return the seconds that a request would wait before a retry, without waiting."""

    def planned(status, retry_after):
        server.inject(Fault.status(status, retry_after=retry_after))
        event = GivesUpAtOnce()
        with abandoned_by(event), pytest.raises(TransferError, match=rf"\b{status}\b"):
            prepared.exists("d/small")
        return event.wait_s

    return planned


def in_half_a_minute():
    """Return the time 30 s from now, in HTTP's format."""
    then = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=30)
    return format_datetime(then, usegmt=True)


@pytest.mark.parametrize(
    ("status", "retry_after"),
    [
        pytest.param(429, lambda: 30, id="429-seconds"),
        pytest.param(503, in_half_a_minute, id="503-date"),
    ],
)
def test_retry_after_is_heeded(planned_wait_s, status, retry_after):
    """The wait before a retry follows the header ``Retry-After``."""
    assert 10 < planned_wait_s(status, retry_after()) <= 30


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
def test_invalid_retry_after_is_ignored(server, prepared, tmp_path, value, download):
    """A ``Retry-After`` that cannot be parsed causes no error."""
    server.inject(Fault.status(503, retry_after=value))
    download(prepared, tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["3600", "9" * 30, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_retry_after_is_capped(planned_wait_s, value):
    """A wait is limited to the budget of 60 s, even if ``Retry-After`` is longer."""
    assert planned_wait_s(429, value) == 60


def warnings_in(caplog):
    """Return the messages of the warnings so far."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_long_waits_are_logged_once_for_many_files(own_server, settings, caplog, wait_until):
    """Waits of twenty files for one reason log one warning with server, reason and time."""
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
    warning = (
        f"Waiting for 127.0.0.1:{own_server.port}, for up to 60 s more per file: Cannot look up"
    )
    assert warning in warnings_in(caplog)[0]
    assert "answered 503" in warnings_in(caplog)[0]
    assert "write" not in warnings_in(caplog)[0]


def test_short_waits_are_not_logged(own_server, prepare, settings, caplog):
    """A wait of one second is not logged as a warning."""
    bucket = prepare(Bucket(own_server.uri(), settings), own_server)
    own_server.inject(Fault.status(503, times=2), Fault.status(429, retry_after=1))
    assert bucket.exists("d/small")
    *_, third, fourth = own_server.requests
    assert fourth.started - third.started > 0.9
    assert warnings_in(caplog) == []


def test_another_wait_is_logged(caplog):
    """A wait for another server or reason is logged; the same wait is not logged again."""
    waits = LongWaits(pause_s=3600)
    busy = ServerUnavailableError("busy")
    for authority, error in (("a:1", busy), ("b:1", busy), ("a:1", LockedError("locked"))) * 3:
        waits.warn(authority, error, 20.4)
    assert warnings_in(caplog) == [
        "Waiting for a:1, for up to 20 s more per file: busy",
        "Waiting for b:1, for up to 20 s more per file: busy",
        "Waiting for a:1, for up to 20 s more per file: locked",
    ]


def test_the_same_wait_is_logged_again_after_a_pause(caplog, wait_until):
    """The same wait is logged again after the given pause."""
    waits = LongWaits(pause_s=0.1)
    started = time.monotonic()

    def logged_again():
        waits.warn("a:1", ServerUnavailableError("busy"), 50)
        return len(warnings_in(caplog)) == 2

    wait_until(logged_again)
    assert time.monotonic() - started >= 0.1


def test_abandoned_downloads_end_within_the_file(server, prepared, tmp_path, wait_until):
    """An abandoned download stops before the end of the file, and leaves no file."""
    server.put("d/large", bytes(20 << 20))
    server.inject(Fault.trickle(1 << 19))  # the complete file takes 40 s
    given_up = threading.Event()

    def give_up():
        wait_until(lambda: not len(server.faults))
        given_up.set()

    thread = threading.Thread(target=give_up)
    thread.start()
    with abandoned_by(given_up), pytest.raises(TransferError, match="abandoned"):
        prepared.download_file("d/large", tmp_path / "x")
    thread.join()
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: len(server.requests))
    assert server.requests[0].bytes_sent < 20 << 20


def test_abandoned_uploads_end_within_the_file(server, prepared):
    """An abandoned upload stops before the end of the file, and stores nothing."""
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
    """Make a bucket with a short timeout and this number of retries."""

    def make(retries):
        prepare(Bucket(own_server.uri(), settings), own_server)
        short = replace(settings, transfer_timeout_s=0.2, max_retries=retries)
        return Bucket(own_server.uri(), short)

    return make


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
    """A server that stops sending causes a timeout, whose error names the variable to set."""
    bucket = impatient(retries=1)
    own_server.inject(Fault.stall(300, at=at, times=None))
    with pytest.raises(TransferTimeoutError, match="MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"):
        operation(bucket, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"source"}


@pytest.mark.parametrize("operation", OPERATIONS, indirect=True)
def test_one_stall_is_retried(own_server, impatient, tmp_path, operation):
    """An operation is retried after one stall."""
    bucket = impatient(retries=7)  # on a busy machine, other requests may time out
    own_server.inject(Fault.stall(300))
    operation(bucket, tmp_path)
    operation.check(own_server, tmp_path)


def test_slow_downloads_do_not_time_out(server, prepare, settings, tmp_path, download):
    """A download may take longer than the timeout as long as bytes arrive."""
    bucket = prepare(Bucket(server.uri(), replace(settings, transfer_timeout_s=1, max_retries=0)))
    server.inject(Fault.trickle(240_000))
    download(bucket, tmp_path)
    assert server.requests[0].duration_s > 1
