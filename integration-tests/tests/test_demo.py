"""The command that a newcomer pastes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

_DEMO = [sys.executable, "-m", "mlflow_bucketfs_testing", "demo"]


def test_the_demo_shows_that_the_model_predicts_the_same():
    """It ends with a table and exit status 0, whatever the environment says of other servers."""
    elsewhere = {"MLFLOW_EXPERIMENT_ID": "99", "EXA_BUCKETFS_ALLOWED_HOSTS": "exasol.example.com"}
    env = {**os.environ, **elsewhere}
    completed = subprocess.run(_DEMO, env=env, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "All three predict the same" in completed.stdout
    table = [line.split() for line in completed.stdout.splitlines() if line.startswith("load ")]
    assert [line[-2] for line in table] == ["6", "0"]  # requests over HTTP and from the mount


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_the_demo_leaves_no_process_behind(number, tmp_path):
    """Ctrl-C, or a polite kill, ends both servers with everything that they started."""
    with (tmp_path / "output").open("w") as output:
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        demo = subprocess.Popen([*_DEMO, "--keep"], stdout=output, start_new_session=True, env=env)
    try:
        _wait_until(lambda: "Ctrl-C stops both" in (tmp_path / "output").read_text(), demo)
        family = [*psutil.Process(demo.pid).children(recursive=True)]
        assert family
        demo.send_signal(number)
        demo.wait(60)
        gone, alive = psutil.wait_procs(family, timeout=20)
        assert (len(gone), alive) == (len(family), [])
    finally:
        demo.kill()


def _wait_until(condition, process, timeout_s=180):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
