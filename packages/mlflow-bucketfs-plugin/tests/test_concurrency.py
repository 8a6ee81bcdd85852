"""Tests of threads, forks, processes and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault, Profile


def test_many_threads_on_one_repository(server, repo, local):
    """Threads that share a repository do not mix up their files."""

    def use(number):
        files = {f"{i}/f{number}": f"{number}-{i}".encode() for i in range(5)}
        directory = local.write(files, f"up{number}")
        repo.log_artifacts(directory, f"run{number}")
        assert [i.path for i in repo.list_artifacts(f"run{number}/1")] == [
            f"run{number}/1/f{number}"
        ]
        target = local.directory(f"down{number}")
        repo.download_artifacts(f"run{number}", str(target))
        assert local.read(target / f"run{number}") == files
        repo.delete_artifacts(f"run{number}/0")
        return sorted(files)[1:]

    with ThreadPoolExecutor(24) as pool:
        kept = list(pool.map(use, range(48)))
    assert server.keys() == sorted(
        f"root/run{number}/{name}" for number, names in enumerate(kept) for name in names
    )
    assert server.requests.connections <= repo.max_workers


FORKING = """
import asyncio, os, sys, threading
from pathlib import Path
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

async def chunks():
    yield b"streamed"

def stream(folder):
    asyncio.run(repo.log_artifact_from_async_stream(chunks(), "s", folder))

repo = BucketFSArtifactRepository(sys.argv[1])
Path("up").mkdir()
for number in range(20):
    Path("up", str(number)).write_text(f"content {number}")
repo.log_artifacts("up", "before")
stream("before")
stop = threading.Event()

def use():
    while not stop.is_set():
        repo.list_artifacts("before")

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for child in range(8):
    if pid := os.fork():
        children.append(pid)
        continue
    try:
        repo.log_artifacts("up", f"child{child}")
        stream(f"child{child}")
        assert len(repo.list_artifacts(f"child{child}")) == 21
        assert len(os.listdir(repo.download_artifacts(f"child{child}"))) == 21
        repo.delete_artifacts(f"child{child}/0")
        os._exit(0)
    finally:
        os._exit(1)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
stop.set()
for thread in threads:
    thread.join()
repo.log_artifacts("up", "after")
print(statuses)
"""


def test_eight_forked_processes_at_once(server, run_python):
    """Eight children, forked during requests, log into one bucket; no file is lost or mixed up."""
    assert run_python(FORKING, server.uri(path="root")) == f"{[0] * 8}\n"
    folders = {"before": range(20), "after": range(20)}
    folders |= {f"child{child}": range(1, 20) for child in range(8)}
    expected = {
        f"root/{folder}/{number}": f"content {number}".encode()
        for folder, numbers in folders.items()
        for number in numbers
    }
    expected |= {f"root/{folder}/s": b"streamed" for folder in folders if folder != "after"}
    assert {key: server.read(key) for key in server.keys()} == expected


# Longer than the exit of a process under load: with six others on two processors, it took
# 11 s instead of 0.3 s for an interpreter that has imported MLflow.
PATIENCE_S = 600

UPLOADING = """
import sys
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

BucketFSArtifactRepository(sys.argv[1]).log_artifacts(sys.argv[2])
"""


@contextmanager
def interrupted_upload(server, directory, reached):
    """Interrupt a process that uploads a directory, once a condition is met."""
    with subprocess.Popen(
        [sys.executable, "-c", UPLOADING, server.uri(path="root"), directory],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while not reached():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            yield process
        finally:
            process.kill()


def test_interrupt_starts_no_further_upload(make_server, local, monkeypatch):
    """After Ctrl-C, only uploads in progress are completed, and no MLmodel is written."""
    monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", "4")
    server = make_server(profile=Profile(put_floor_s=0.2))
    directory = local.write({"MLmodel": b"m"} | {f"{number}": b"x" for number in range(400)})
    with interrupted_upload(server, directory, server.keys) as process:
        assert "KeyboardInterrupt" in process.communicate(timeout=PATIENCE_S)[1]
    assert 0 < len(server.keys()) < 100
    assert "root/MLmodel" not in server.keys()


def test_interrupt_ends_the_wait_for_a_retry(make_server, local):
    """Ctrl-C does not wait for the remaining retries."""
    server = make_server()
    server.inject(Fault.status(503, method="PUT", retry_after=60, times=None))
    directory = local.write({"a": b"x"})
    with interrupted_upload(server, directory, lambda: server.requests.count(method="PUT")) as it:
        assert "KeyboardInterrupt" in it.communicate(timeout=PATIENCE_S)[1]
    # a process that waited would have sent its second attempt
    assert server.requests.count(method="PUT") == 1


def test_a_second_interrupt_stops_waiting(make_server, local, monkeypatch):
    """Ctrl-C logs the number of unanswered uploads; a second Ctrl-C ends the process."""
    monkeypatch.setenv("EXA_BUCKETFS_MAX_WORKERS", "3")
    server = make_server()
    server.inject(Fault.stall(10 * PATIENCE_S, method="PUT", times=3))
    directory = local.write({f"{number}": b"x" for number in range(20)})
    # stored, so that only the responses are missing: an upload that still sends is aborted
    with interrupted_upload(server, directory, lambda: len(server.keys()) == 3) as process:
        reported = process.stderr.readline()
        assert reported.startswith("Interrupted: waiting for 3 transfer(s)")
        assert "Press Ctrl-C again" in reported
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        # the server would keep it waiting ten times as long
        assert "KeyboardInterrupt" in process.communicate(timeout=PATIENCE_S)[1]


def test_repositories_share_connections(server, local):
    """Repositories of one process share connections."""
    for number in range(30):
        repo = BucketFSArtifactRepository(server.uri(path=f"run{number}"))
        repo.log_artifact(local.write({"f": b"1"}) / "f")
        Path(repo.download_artifacts("f")).read_bytes()
    assert server.requests.connections <= 2
