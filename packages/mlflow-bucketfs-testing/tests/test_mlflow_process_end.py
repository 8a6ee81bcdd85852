"""The end of `MlflowServerProcess`: with its block, by Ctrl-C, by force, or with its owner."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from mlflow_bucketfs_testing import MlflowServerProcess

pytestmark = pytest.mark.usefixtures("nothing_left")

# Ends only with the process that the test ends
OWNER = """
import time
from mlflow_bucketfs_testing import MlflowServerProcess
server = MlflowServerProcess({options})
with server:
    print(server.directory, flush=True)
    time.sleep(600)
"""


def descendants(pid, attribute):
    """Return the result of a method of psutil for each descendant of the process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found.append(getattr(child, attribute)())
    return found


def test_interrupt_while_starting_leaves_nothing():
    """Ctrl-C during the start ends all started processes and is raised."""

    def interrupt(elapsed_s):
        if elapsed_s > 1:
            raise KeyboardInterrupt

    interrupted = MlflowServerProcess(on_wait=interrupt)

    with pytest.raises(KeyboardInterrupt):
        interrupted.start()

    assert not interrupted.directory.exists()


def test_job_runners_end_with_the_server(caplog, wait_until):
    """Job runner and queues, which outlive the server for seconds, end with the block."""
    jobs = Path(str(find_spec("mlflow").origin)).parent / "server" / "jobs"
    if not (jobs / "_periodic_tasks_consumer.py").is_file():
        pytest.skip("this MLflow has no periodic tasks, and keeps no process for jobs")
    patient = MlflowServerProcess(
        env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}, stop_timeout_s=120
    )
    with caplog.at_level(logging.WARNING), patient as serving:
        wait_until(lambda: "_periodic_tasks_consumer" in str(descendants(serving.pid, "cmdline")))

    assert not caplog.messages
    assert not serving.directory.exists()


def test_hanging_shutdown_is_ended_by_force(caplog, wait_until):
    """A server that an unfinished upload keeps from ending is killed with its workers."""
    with MlflowServerProcess(workers=2, stop_timeout_s=2) as hanging:
        port = int(hanging.uri.rpartition(":")[2])
        upload = socket.create_connection(("127.0.0.1", port))
        upload.sendall(
            b"PUT /api/2.0/mlflow-artifacts/artifacts/x HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\nunfinished"
        )

        def is_accepted():
            clients = (
                each.raddr for c in descendants(hanging.pid, "net_connections") for each in c
            )
            return upload.getsockname() in clients

        wait_until(is_accepted)
    upload.close()

    assert "had to be killed" in caplog.text


@pytest.mark.parametrize(
    ("signal_number", "options"),
    [
        pytest.param(signal.SIGKILL, "", id="killed-while-serving"),
        pytest.param(
            signal.SIGTERM,
            "on_wait=lambda s: print(server.directory, flush=True)",
            id="terminated-while-starting",
        ),
    ],
)
def test_guard_ends_the_server_of_a_killed_process(
    signal_number, options, session_processes, wait_until
):
    """If the owning process is killed, the guard ends the server and removes its directory."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(options=options)], stdout=subprocess.PIPE, text=True
    ) as owner:
        directory = Path(owner.stdout.readline().strip())
        assert directory.is_dir()
        started = session_processes()
        owner.send_signal(signal_number)

    assert started
    wait_until(lambda: not directory.exists())
