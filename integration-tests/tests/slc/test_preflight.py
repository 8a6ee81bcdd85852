"""Missing requirements of an export are reported before it starts, with the remedy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import bare_machine
import pytest
from slc_build import commands, paths, preflight
from slc_build.commands import SlcBuildError, choose_engine

MACHINE = "bare_machine.py"
EXPORT = ("-m", "slc_build.export")
NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command behind one of the nox sessions."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        cwd=paths.ROOT / "slc",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [[*EXPORT], [MACHINE, "base"], [MACHINE, "engine", "status"]])
def test_without_an_engine_the_remedy_is_reported(command):
    """Each command that needs Docker reports how to start a private engine."""
    done = run(*command, env=NOWHERE)
    assert done.returncode == 1
    assert "no Docker engine answers" in done.stderr
    assert "uv run nox -s slc:engine -- start" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_private_engine_is_started_if_docker_host_is_set():
    """A DOCKER_HOST without an engine is an error; no private engine is started."""
    done = run(MACHINE, "engine", "start", env=NOWHERE)
    assert done.returncode == 1
    assert f"no engine answers at DOCKER_HOST={NOWHERE['DOCKER_HOST']}" in done.stderr


@pytest.fixture
def engine_directory(tmp_path, monkeypatch):
    """The private engine's directory, which does not exist; no engine is selected or running."""
    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.delenv("DOCKER_HOST")  # set before, so that a change in the test is undone
    monkeypatch.setenv("PATH", str(tmp_path))
    # not in tmp_path, because the path of a socket has at most 107 bytes
    with TemporaryDirectory(prefix="engine-", dir="/tmp") as folder:
        directory = Path(folder, "engine")
        for module in (commands, bare_machine):
            monkeypatch.setattr(module, "engine_directory", lambda: directory)
        yield directory


def with_a_socket(directory):
    """Create the socket of an engine without a listener, because only its file is checked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "docker.sock"))


def test_our_own_private_engine_is_chosen(engine_directory):
    """An engine in a directory of this user with mode 0700 is selected."""
    engine_directory.mkdir(mode=0o700)
    with_a_socket(engine_directory)
    choose_engine()
    assert os.environ["DOCKER_HOST"] == f"unix://{engine_directory}/docker.sock"


@pytest.mark.parametrize("kind", ["readable", "writable", "link", "foreign"])
def test_a_directory_that_others_may_have_made_is_not_used(
    engine_directory, tmp_path, monkeypatch, kind
):
    """A directory that another user may have created, at the known path, is not used or changed."""
    made = engine_directory.with_name("elsewhere") if kind == "link" else engine_directory
    made.mkdir(mode={"readable": 0o755, "writable": 0o777}.get(kind, 0o700))
    if kind == "writable":
        made.chmod(0o777)  # independent of the umask
    if kind == "link":
        engine_directory.symlink_to(made)
    if kind == "foreign":  # as if created by another user, which only root could do
        monkeypatch.setattr(os, "geteuid", lambda: made.stat().st_uid + 1)
    with_a_socket(made)
    (made / "dockerd.log").symlink_to(tmp_path / "victim")
    choose_engine()
    assert "DOCKER_HOST" not in os.environ
    with pytest.raises(SlcBuildError, match="is not a directory of this user with mode 0700"):
        bare_machine.start()
    bare_machine.remove()
    assert sorted(path.name for path in made.iterdir()) == ["docker.sock", "dockerd.log"]
    assert not (tmp_path / "victim").exists()


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    """One message has the remedies for missing uv and missing Docker."""
    done = run(*EXPORT, env={**NOWHERE, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "pip install uv" in done.stderr
    assert "no Docker engine answers" in done.stderr


def test_without_a_python_to_copy_the_remedy_is_reported(tmp_path, monkeypatch):
    """The error for a missing interpreter of the container's version has the remedy."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(SlcBuildError, match=r"no CPython 3\.99 to copy: uv python install 3\.99"):
        bare_machine.python_to_copy("3.99")


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """The file of the committed digests of base images, with one digest."""
    file = tmp_path / "slc" / "digests.txt"
    file.parent.mkdir()
    file.write_text(f"# a comment\n\nsha256:{'a' * 64}\n")
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    monkeypatch.setattr(preflight, "BASE_DIGESTS", file)
    return file


def base_image(*digests):
    """Return a base image with these digests."""
    return commands.Image(name="base:1", id="sha256:0", digests=digests)


def test_a_release_is_built_on_the_committed_base(committed):
    """The image of the committed digest is accepted; another one and a stand-in are refused."""
    ours, other = base_image(f"base@sha256:{'a' * 64}"), base_image(f"base@sha256:{'b' * 64}")
    assert preflight.base_problem(ours, "committed") is None
    problem = preflight.base_problem(other, "committed")
    assert f"digest sha256:{'b' * 64}, and slc/digests.txt has sha256:{'a' * 64}" in problem
    problem = preflight.base_problem(base_image(), "committed")
    assert "is a local stand-in, and --require-committed-base was given" in problem
    committed.write_text("# none\n")
    problem = preflight.base_problem(ours, "committed")
    assert "slc/digests.txt has none yet" in problem


def test_a_base_of_any_digest_is_accepted_between_releases(committed):
    """Without a release, an image of any digest is accepted, and with "any" a stand-in too."""
    committed.unlink()
    pulled = base_image(f"base@sha256:{'b' * 64}")
    assert preflight.base_problem(pulled, "official") is None
    assert preflight.base_problem(base_image(), "any") is None


def test_a_stand_in_is_refused_for_a_release(build_info):
    """``--require-official-base`` refuses a stand-in and reports the remedy."""
    pytest.importorskip("exasol.slc.api", reason="exaslct is missing: uv run --group slc pytest")
    if build_info["base_image"]["origin"] == "pulled":
        pytest.skip("the base image is the official one")
    done = run(*EXPORT, "--require-official-base", env={})
    assert done.returncode == 1
    assert "is a local stand-in, and --require-official-base was given: docker rmi" in done.stderr
