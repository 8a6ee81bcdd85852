"""What is missing is said at once, with the command that gets it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from slc_build import places, pythons
from slc_build.progress import SlcBuildError

NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def slc_build(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command behind the nox sessions."""
    return subprocess.run(
        [sys.executable, "-m", "slc_build", *arguments],
        env={**os.environ, "PYTHONPATH": str(places.ROOT / "slc"), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [["export"], ["base"], ["engine", "status"]])
def test_without_an_engine_the_way_to_one_is_named(command):
    """All that need Docker say how to start a private engine."""
    done = slc_build(*command, env=NOWHERE)
    assert done.returncode == 1
    assert "no Docker engine answers" in done.stderr
    assert "uv run nox -s slc:engine -- start" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_engine_is_not_started_behind_the_users_back():
    """DOCKER_HOST that names a dead engine is an error, not a reason to start one elsewhere."""
    done = slc_build("engine", "start", env=NOWHERE)
    assert done.returncode == 1
    assert f"no engine answers at DOCKER_HOST={NOWHERE['DOCKER_HOST']}" in done.stderr


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    """Neither uv nor Docker: one message, two remedies."""
    done = slc_build("export", env={**NOWHERE, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "pip install uv" in done.stderr
    assert "no Docker engine answers" in done.stderr


def test_without_a_python_to_copy_the_way_to_one_is_named(tmp_path, monkeypatch):
    """The stand-in needs an interpreter of the container's version."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(SlcBuildError, match=r"no CPython 3\.99 to copy: uv python install 3\.99"):
        pythons.python_to_copy("3.99")


def test_a_stand_in_is_refused_for_a_release(build_info):
    """``--require-official-base`` says what to do about it."""
    pytest.importorskip("exasol.slc.api", reason="exaslct is missing: uv run --group slc pytest")
    if build_info["base_image"]["origin"] == "pulled":
        pytest.skip("the base image is the official one")
    done = slc_build("export", "--require-official-base", env={})
    assert done.returncode == 1
    assert "is a local stand-in, and --require-official-base was given: docker rmi" in done.stderr
