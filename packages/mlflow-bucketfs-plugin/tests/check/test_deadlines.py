"""``mlflow-bucketfs check`` against servers that never come to an end."""

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
from mlflow_bucketfs_plugin.check import run_check
from mlflow_bucketfs_testing.server import Fault

DEADLINE_S = 0.5


def one_header_byte_at_a_time():
    """An answer whose header grows too slowly for anything but a deadline."""
    yield b"HTTP/1.1 200 OK\r\nX-Endless: "
    while True:
        yield b"x"


def endless_100_continue():
    """Interim answers, and never the final one."""
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def endless_listing():
    """An answer whose body has no end."""
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    while True:
        yield b"default\n"


def one_handshake_byte_at_a_time():
    """A TLS record that announces 16 KiB and arrives too slowly."""
    yield b"\x16\x03\x03\x40\x00"
    while True:
        yield b"\x00"


@contextmanager
def server_that_says(talk):
    """Send each connection what ``talk`` yields, a piece every few milliseconds."""
    is_over = threading.Event()
    threads = []

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            for piece in talk():
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


@pytest.mark.parametrize(
    ("scheme", "talk", "step"),
    [
        ("exa+bfs", one_header_byte_at_a_time, "service"),
        ("exa+bfs", endless_100_continue, "service"),
        ("exa+bfs", endless_listing, "service"),
        ("exa+bfss", one_handshake_byte_at_a_time, "tls"),
    ],
)
def test_server_that_keeps_talking(scheme, talk, step):
    """A step that never ends fails at its deadline, and what needs it is skipped."""
    with server_that_says(talk) as port:
        report = run_check(f"{scheme}://127.0.0.1:{port}/a/b", deadline_s=DEADLINE_S)
    steps = {taken.name: taken for taken in report.steps}
    assert [name for name in steps if steps[name].result == "failed"] == [step]
    assert f"not finished after {DEADLINE_S} s" in steps[step].summary
    assert "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT" in steps[step].remedy
    assert steps["delete"].summary == f"needs the step '{step}', which failed"
    assert steps["mount"].result == "ok"


@pytest.mark.parametrize(
    ("method", "step", "deleted"), [("GET", "read_back", "ok"), ("PUT", "write", "skipped")]
)
def test_object_is_deleted_at_a_deadline(  # noqa: PLR0917
    server, environment, secret, method, step, deleted
):
    """Whichever step is not waited for, the probe object does not stay."""
    environment.setenv("EXA_BUCKETFS_PASSWORD", secret)
    server.inject(Fault.stall(60, method=method, key="*check*", times=None))
    report = run_check(server.uri(), deadline_s=DEADLINE_S)
    steps = {taken.name: taken for taken in report.steps}
    assert [name for name in steps if steps[name].result == "failed"] == [step]
    assert steps["delete"].result == deleted
    assert server.requests.count(method="DELETE", status=200) == 1
    assert server.keys() == []


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_object_is_deleted_after_an_interrupt(server, secret, method):
    """Ctrl-C while the probe object is written, or read back, deletes it."""
    server.inject(Fault.stall(60, method=method, key="*check*", times=None))
    with subprocess.Popen(
        [Path(sys.executable).with_name("mlflow-bucketfs"), "check", server.uri()],
        env={**os.environ, "EXA_BUCKETFS_PASSWORD": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not server.keys():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert "Aborted" in process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert server.keys() == []
