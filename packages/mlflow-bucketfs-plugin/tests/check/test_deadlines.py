"""Tests of ``mlflow-bucketfs check`` against servers that stall or send without end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from mlflow_bucketfs_plugin.check import local, run_check, steps
from mlflow_bucketfs_testing.server import Fault

# Longer than any step of these tests takes under load
PATIENCE_S = 600


def one_header_byte_at_a_time():
    """Yield a header byte by byte, without end, so that no read times out."""
    yield b"HTTP/1.1 200 OK\r\nX-Endless: "
    while True:
        yield b"x"


def endless_100_continue():
    """Yield interim responses without end."""
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def endless_listing():
    """Yield a response whose body has no end."""
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    while True:
        yield b"default\n"


def one_handshake_byte_at_a_time():
    """Yield a TLS record of 16 KiB byte by byte."""
    yield b"\x16\x03\x03\x40\x00"
    while True:
        yield b"\x00"


@contextmanager
def server_that_sends(response):
    """Send the pieces of a response to each connection, one every few milliseconds."""
    is_over = threading.Event()
    threads = []

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            for piece in response():
                if is_over.wait(0.005):
                    return
                connection.sendall(piece)

    def accept():
        with suppress(OSError):
            while not is_over.is_set():
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.fixture
def check_with_deadline(monkeypatch):
    """Check a URI with a deadline for one step; the others may take as long as they need."""
    within = steps._within

    def check(uri, step, deadline_s):
        (limited,) = (row.function for row in steps._STEPS if row.name == step)

        def within_or_patient(seconds, function, facts):
            return within(seconds if function is limited else PATIENCE_S, function, facts)

        monkeypatch.setattr(steps, "_within", within_or_patient)
        return run_check(uri, deadline_s=deadline_s)

    return check


@pytest.mark.parametrize(
    ("scheme", "response", "step"),
    [
        ("exa+bfs", one_header_byte_at_a_time, "service"),
        ("exa+bfs", endless_100_continue, "service"),
        ("exa+bfs", endless_listing, "service"),
        ("exa+bfss", one_handshake_byte_at_a_time, "tls"),
    ],
)
def test_server_that_sends_without_end(check_with_deadline, scheme, response, step):
    """A step that does not end fails at its deadline, and dependent steps are skipped."""
    with server_that_sends(response) as port:
        report = check_with_deadline(f"{scheme}://127.0.0.1:{port}/a/b", step, 0.5)
    taken = {each.name: each for each in report.steps}
    assert [name for name in taken if taken[name].result == "failed"] == [step]
    assert "not finished after 0.5 s" in taken[step].summary
    assert "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT" in taken[step].remedy
    assert taken["delete"].summary == f"needs the step '{step}', which failed"
    assert taken["mount"].result == "ok"


@pytest.mark.parametrize(
    ("method", "step", "deadline_s", "deleted"),
    [
        ("GET", "read_back", 0.5, "ok"),
        ("PUT", "write", 5, "skipped"),  # enough to store the object
    ],
)
def test_object_is_deleted_at_a_deadline(  # noqa: PLR0917
    server, environment, secret, check_with_deadline, method, step, deadline_s, deleted
):
    """If a step exceeds its deadline, the probe object is deleted."""
    environment.setenv("EXA_BUCKETFS_PASSWORD", secret)
    environment.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", str(PATIENCE_S))
    server.inject(Fault.stall(10 * PATIENCE_S, method=method, key="*check*", times=None))
    report = check_with_deadline(server.uri(), step, deadline_s)
    taken = {each.name: each for each in report.steps}
    assert [name for name in taken if taken[name].result == "failed"] == [step]
    assert f"not finished after {deadline_s} s" in taken[step].summary
    assert taken["delete"].result == deleted
    assert server.requests.count(method="DELETE", status=200) == 1
    assert server.keys() == []


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_object_is_deleted_after_an_interrupt(server, secret, method):
    """Ctrl-C while the probe object is written, or read back, deletes it."""
    server.inject(Fault.stall(10 * PATIENCE_S, method=method, key="*check*"))
    variables = {
        "EXA_BUCKETFS_PASSWORD": secret,
        "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": str(PATIENCE_S),
    }
    with subprocess.Popen(
        [Path(sys.executable).with_name("mlflow-bucketfs"), "check", server.uri()],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not server.keys() or len(server.faults):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert "Aborted" in process.communicate(timeout=PATIENCE_S)[1]
        finally:
            process.kill()
    assert server.keys() == []


@pytest.mark.parametrize(
    ("folder", "options", "deletions"),
    [
        pytest.param("file/below", {}, 0, id="write-skipped"),
        pytest.param("", {"read_only": True}, 0, id="read-only"),
        pytest.param("", {}, 1, id="deleted"),
    ],
)
def test_interrupt_without_an_object_to_delete(  # noqa: PLR0917
    server, environment, secret, folder, options, deletions
):
    """Ctrl-C in the last step sends no DELETE for an object that does not exist."""

    def interrupt(*_):
        raise KeyboardInterrupt

    server.put("file", b"in the way")
    environment.setenv("EXA_BUCKETFS_PASSWORD", secret)
    environment.setattr(local, "bucket_udf_path", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_check(server.uri(path=folder), **options)
    assert server.requests.count(method="DELETE") == deletions
