"""The command ``mlflow-bucketfs-testing demo``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import psutil
import pytest
from mlflow_bucketfs_testing.demo import _score_with_sql

_DEMO = [sys.executable, "-m", "mlflow_bucketfs_testing", "demo", "--keep"]


@pytest.fixture
def demo(tmp_path):
    """Run the demo; yield the process, and a function that waits for a text in its output."""
    elsewhere = {"MLFLOW_EXPERIMENT_ID": "99", "EXA_BUCKETFS_ALLOWED_HOSTS": "exasol.example.com"}
    with (tmp_path / "output").open("w") as output:
        env = {**os.environ, **elsewhere, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            _DEMO, stdout=output, stderr=output, start_new_session=True, env=env
        )

    def printed_once(text):
        deadline = time.monotonic() + 180
        while text not in (so_far := (tmp_path / "output").read_text()):
            assert process.poll() is None, so_far
            assert time.monotonic() < deadline, so_far
            time.sleep(0.1)
        return so_far

    yield process, printed_once
    process.kill()
    process.wait()


def _ends_with_all_its_processes(process, number):
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(number)
    process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=60)
    return not alive


def test_the_model_predicts_the_same_and_ctrl_c_ends_the_servers(demo):
    """The demo ignores the environment, prints its table, and runs until Ctrl-C."""
    process, printed_once = demo
    printed = printed_once("Ctrl-C stops both")
    assert "All predict the same" in printed
    rows = ("load ", "score with ")
    table = [line.split() for line in printed.splitlines() if line.startswith(rows)]
    # requests over HTTP, from the mount, and by the script
    assert [line[-2] for line in table] == ["6", "0", "0"]
    assert _ends_with_all_its_processes(process, signal.SIGINT)
    assert process.returncode == 0


def test_sigterm_during_the_start_ends_all_processes(demo):
    """SIGTERM during the start ends the MLflow server and all its processes."""
    process, printed_once = demo
    printed_once("MLflow server is starting")
    assert _ends_with_all_its_processes(process, signal.SIGTERM)


def test_an_error_of_the_sql_command_is_reported(monkeypatch, tmp_path):
    """The demo's error contains that of `mlflow-bucketfs sql`, such as a missing model."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(
        click.ClickException, match=r"(?s)cannot generate a script:.*iris not found"
    ):
        _score_with_sql(None, None, [])
