"""A private Docker engine for machines that have none: nothing of the host is changed.

It runs in a network namespace of its own, because an engine without a bridge would otherwise
remove the ``docker0`` of one that already runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from slc_build import docker
from slc_build.commands import missing, output_of
from slc_build.paths import engine_directory, is_private
from slc_build.progress import SlcBuildError, say

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
_TAIL_LINES = 15
_PROGRAMS = ("dockerd", "containerd")  # the shims are called containerd-shim…


def start() -> None:
    """Start the private engine, unless an engine answers already.

    Raises:
        SlcBuildError: it cannot be started here; the message says why.
    """
    docker.choose_engine()
    if docker.engine_answers():
        say(f"A Docker engine runs already ({os.environ.get('DOCKER_HOST', 'the default one')})")
        return
    private = f"unix://{docker.private_socket()}"
    if os.environ.get("DOCKER_HOST", "") not in {"", private}:
        raise SlcBuildError(f"no engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}")
    directory = engine_directory()
    if os.path.lexists(directory):
        _require_private(directory)
    if absent := missing("dockerd", "docker", "unshare"):
        raise SlcBuildError(
            f"{', '.join(absent)} not found: apt-get install -y --no-install-recommends docker.io"
        )
    if os.geteuid() != 0:
        raise SlcBuildError("a private Docker engine needs root: run this with sudo")
    if pid := _pid(directory):
        raise SlcBuildError(
            f"the private engine (process {pid}) starts, or hangs; in the latter case: "
            "uv run nox -s slc:engine -- stop"
        )
    directory.mkdir(mode=0o700, exist_ok=True)
    _require_private(directory)  # somebody else may have been faster
    _clean_up(directory)  # what a crash of the last one may have left
    log = directory / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            _command(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    os.environ["DOCKER_HOST"] = private
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not docker.engine_answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            _clean_up(directory)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise SlcBuildError(f"the Docker engine cannot be started here; its log ends:\n{tail}")
        time.sleep(0.5)
    say(f"Docker engine started: export DOCKER_HOST={os.environ['DOCKER_HOST']}")


def stop() -> None:
    """Stop the private engine and see to it that no process of it is left."""
    directory = engine_directory()
    pid = _pid(directory) if is_private(directory) else None
    if pid is None:
        say("The private Docker engine does not run")
    else:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while _pid(directory) is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        say(f"Docker engine stopped; its images stay in {directory}")
    if is_private(directory):
        _clean_up(directory)


def remove() -> None:
    """Stop the private engine and delete its images."""
    stop()
    directory = engine_directory()
    if is_private(directory):
        output_of("rm", "-rf", "--one-file-system", str(directory))
        say(f"Removed {directory}")


def status() -> None:
    """Say which engine is used.

    Raises:
        SlcBuildError: None answers.
    """
    docker.choose_engine()
    if not docker.engine_answers():
        raise SlcBuildError(docker.NO_ENGINE)
    say(f"Docker engine {docker.engine_version()}: DOCKER_HOST={os.environ.get('DOCKER_HOST', '')}")


def _command(directory: Path) -> list[str]:
    return [
        *("unshare", "--net", "dockerd"),
        *("--data-root", str(directory / "data")),
        *("--exec-root", str(directory / "exec")),
        *("--pidfile", str(directory / "dockerd.pid")),
        *("--host", f"unix://{docker.private_socket()}"),
        *("--bridge=none", "--iptables=false", "--ip6tables=false"),
    ]


def _require_private(directory: Path) -> None:
    """Refuse a directory in which somebody else may have put anything.

    Raises:
        SlcBuildError: It is not this user's, or open to others.
    """
    if not is_private(directory):
        raise SlcBuildError(
            f"{directory} is not a directory of this user with mode 0700: an engine there could be "
            "led by whoever made it. Remove it, or, if it is yours: chmod 700"
        )


def _pid(directory: Path) -> int | None:
    """Return the engine's process, if the pid file names one that is really it."""
    with suppress(OSError, ValueError):
        pid = int((directory / "dockerd.pid").read_text())
        if str(directory / "data") in _command_line(pid):
            return pid
    return None


def _command_line(pid: int) -> list[str]:
    return Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")


def _clean_up(directory: Path) -> None:
    """Kill what the engine left running, and remove what keeps the next one from starting."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile
            program, *arguments = _command_line(int(entry.name))
            ours = any(argument.startswith(f"{directory}/") for argument in arguments)
            if ours and Path(program).name.startswith(_PROGRAMS):
                os.kill(int(entry.name), signal.SIGKILL)
    (directory / "dockerd.pid").unlink(missing_ok=True)
    docker.private_socket().unlink(missing_ok=True)
