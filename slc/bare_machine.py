"""A Docker engine and a base image for machines that have neither.

``engine`` is a private Docker engine that does not change the host. It runs in a separate network
namespace, because an engine without a bridge would otherwise remove the ``docker0`` of one that
already runs.

``base`` makes a stand-in for Exasol's base image: Debian's (or Ubuntu's) packages of the host's
release, a CPython of the container's version that is installed on the host, and the user and
folders of Exasol's image. It takes the official image's name, so that the flavor's files need not
change; a label and the missing digest distinguish the two.

``container`` is for the CI: it installs and starts an engine if none runs, gets a base image and
exports the container. Its exit status 75 means that this is not possible on this machine;
``release-engine`` stops the engine that it started, and no other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from slc_build.commands import (
    NO_ENGINE,
    SlcBuildError,
    choose_engine,
    engine_info,
    image,
    missing,
    output_of,
    private_engine,
    report,
)
from slc_build.paths import OUTPUT, PYTHON, ROOT, base_image, engine_directory, is_private

_LABEL = "mlflow-bucketfs.slc.stand-in"
_STARTED_BY_CI = OUTPUT / "engine-started"

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
_PULL_TIMEOUT_S = 600
_TAIL_LINES = 15
_ENGINE_PROGRAMS = ("dockerd", "containerd")  # the shims are called containerd-shim…


# The private engine


def start() -> None:
    """Start the private engine, unless an engine answers already.

    Raises:
        SlcBuildError: it cannot be started; the message has the reason.
    """
    choose_engine()
    if engine_info("ServerVersion"):
        report(f"A Docker engine runs already ({os.environ.get('DOCKER_HOST', 'the default one')})")
        return
    if os.environ.get("DOCKER_HOST", "") not in {"", private_engine()}:
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
            f"the private engine (process {pid}) does not answer yet. If it hangs: "
            "uv run nox -s slc:engine -- stop"
        )
    directory.mkdir(mode=0o700, exist_ok=True)
    _require_private(directory)  # another user may have made it meanwhile
    _clean_up(directory)  # a crash may have left files and processes
    os.environ["DOCKER_HOST"] = private_engine()
    log = directory / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [
                *("unshare", "--net", "dockerd", "--host", private_engine()),
                *("--data-root", str(directory / "data")),
                *("--exec-root", str(directory / "exec")),
                *("--pidfile", str(directory / "dockerd.pid")),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not engine_info("ServerVersion"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            _clean_up(directory)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise SlcBuildError(f"the Docker engine cannot be started here; its log ends:\n{tail}")
        time.sleep(0.5)
    report(f"Docker engine started: export DOCKER_HOST={os.environ['DOCKER_HOST']}")


def stop() -> None:
    """Stop the private engine and all its processes."""
    directory = engine_directory()
    pid = _pid(directory) if is_private(directory) else None
    if pid is None:
        report("The private Docker engine is not running")
    else:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while _pid(directory) is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        report(f"Docker engine stopped; its images stay in {directory}")
    if is_private(directory):
        _clean_up(directory)


def remove() -> None:
    """Stop the private engine and delete its images."""
    stop()
    directory = engine_directory()
    if is_private(directory):
        output_of("rm", "-rf", "--one-file-system", str(directory))
        report(f"Removed {directory}")


def status() -> None:
    """Print the version and the address of the engine.

    Raises:
        SlcBuildError: no engine answers.
    """
    version = _require_engine()
    report(f"Docker engine {version}: DOCKER_HOST={os.environ.get('DOCKER_HOST', '')}")


def _require_engine() -> str:
    choose_engine()
    if version := engine_info("ServerVersion"):
        return version
    raise SlcBuildError(NO_ENGINE)


def _require_private(directory: Path) -> None:
    if not is_private(directory):
        raise SlcBuildError(
            f"{directory} is not a directory of this user with mode 0700: another user could "
            "control an engine there. Remove it, or, if it is yours: chmod 700"
        )


def _pid(directory: Path) -> int | None:
    """Return the process ID of the engine, or None if it is not running."""
    with suppress(OSError, ValueError):
        pid = int((directory / "dockerd.pid").read_text())
        if str(directory / "data") in _command_line(pid):
            return pid
    return None


def _command_line(pid: int) -> list[str]:
    return Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")


def _clean_up(directory: Path) -> None:
    """Kill processes that the engine left, and remove files that prevent the next start."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile
            program, *arguments = _command_line(int(entry.name))
            ours = any(argument.startswith(f"{directory}/") for argument in arguments)
            if ours and Path(program).name.startswith(_ENGINE_PROGRAMS):
                os.kill(int(entry.name), signal.SIGKILL)
    for left in ("dockerd.pid", "docker.sock"):
        (directory / left).unlink(missing_ok=True)


# The stand-in for the base image


def make_base() -> None:
    """Make the stand-in, unless the engine has an image of this name.

    Raises:
        SlcBuildError: a program or the CPython to copy is missing.
    """
    _require_engine()
    name = base_image()
    if found := image(name):
        report(f"Base image {name} exists ({'pulled' if found.pulled else 'local stand-in'})")
        return
    if absent := missing("debootstrap", "chroot", "tar"):
        raise SlcBuildError(
            f"{', '.join(absent)} not found: apt-get install -y --no-install-recommends "
            "debootstrap (Debian or Ubuntu)"
        )
    if os.geteuid() != 0:
        raise SlcBuildError("debootstrap needs root: run this with sudo")
    prefix = python_to_copy(PYTHON)
    host = platform.freedesktop_os_release()
    # debootstrap refuses file systems mounted with nodev or noexec, as /tmp often is
    with tempfile.TemporaryDirectory(prefix="slc-base-", dir="/var/tmp") as directory:
        root = Path(directory, "root")
        _install_distribution(host.get("VERSION_CODENAME", ""), root)
        report(f"Copying CPython {PYTHON} from {prefix}")
        _copy_python(prefix, root)
        output_of("chroot", str(root), "groupadd", "--gid", "500", "exadefusr")
        user = ("--uid", "500", "--gid", "500", "--no-create-home", "exadefusr")
        output_of("chroot", str(root), "useradd", *user)
        for folder in ("conf", "buckets", "usr/lib/python3/dist-packages"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        report(f"Importing it as {name}")
        packed = Path(directory, "root.tar")
        output_of("tar", "--create", "--numeric-owner", "--file", str(packed), "-C", str(root), ".")
        output_of(
            *("docker", "import", "--change", 'CMD ["/bin/bash"]'),  # exaslct's export needs one
            *("--change", "ENV LANG=en_US.UTF-8 LC_ALL=en_US.UTF-8"),
            *("--change", f"LABEL {_LABEL}={json.dumps(host['ID'])}", str(packed), name),
        )
    report("The stand-in is complete. A release must be built on the official image.")


def python_to_copy(version: str) -> Path:
    """Return the prefix of an installed CPython that can be copied into an image.

    uv finds its own and those on the path; pyenv's are added to the path, because uv does not find
    them behind their shims. The system's own cannot be copied: it is spread over ``/usr``.

    Args:
        version: such as ``3.12``.

    Raises:
        SlcBuildError: none is installed.
    """
    # release/package_check.py does the same to run a Python
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    search = os.pathsep.join([os.environ["PATH"], *map(str, pyenv)])
    if not missing("uv"):
        listed = output_of(
            *("uv", "python", "list", "--only-installed", "--output-format", "json", version),
            env={"UV_PYTHON_SEARCH_PATH": search},
        )
        for python in json.loads(listed):
            prefix = Path(python["path"]).resolve().parents[1]
            if (prefix / "lib" / f"python{version}" / "ensurepip").is_dir() and prefix != Path(
                "/usr"
            ):
                return prefix
    raise SlcBuildError(
        f"no CPython {version} to copy: uv python install {version} (or pyenv install {version})"
    )


def _install_distribution(release: str, root: Path) -> None:
    report(f"Installing a minimal {release} (debootstrap, about a minute)")
    # The host's release: the copied Python needs a C library that is as new as the host's
    output_of("debootstrap", "--variant=minbase", "--include=locales", release, str(root))
    report("Generating the locale en_US.UTF-8")
    output_of("chroot", str(root), "localedef", "-i", "en_US", "-f", "UTF-8", "en_US.UTF-8")
    for waste in ("cache/apt", "lib/apt/lists"):
        shutil.rmtree(root / "var" / waste)
    for waste in ("i18n", "locale", "doc"):
        shutil.rmtree(root / "usr/share" / waste)


def _copy_python(prefix: Path, root: Path) -> None:
    library, local = f"lib/python{PYTHON}", root / "usr/local"
    left_out = ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "tkinter")
    shutil.copytree(
        prefix / library,
        local / library,
        symlinks=True,
        ignore=shutil.ignore_patterns(*left_out, "config-*", "_tkinter*"),
    )
    shutil.copy2(prefix / "bin" / f"python{PYTHON}", local / "bin")
    (local / "bin/python3").symlink_to(f"python{PYTHON}")
    folders = ("lib", "usr/lib", f"usr/lib/{platform.machine()}-linux-gnu")
    for name, file in _shared_libraries(local).items():
        if not any((root / folder / name).exists() for folder in folders):
            shutil.copy2(file, local / "lib" / name)
    # Debian's name for the folder that pip installs to, as in Exasol's image
    (local / library / "dist-packages").mkdir()
    (local / library / "site-packages").symlink_to("dist-packages")
    output_of("chroot", str(root), "ldconfig")
    output_of("chroot", str(root), f"/usr/local/bin/python{PYTHON}", "-m", "ensurepip")


def _shared_libraries(prefix: Path) -> dict[str, Path]:
    """Return the host's shared libraries that an interpreter and its modules load, by name."""
    modules = (prefix / f"lib/python{PYTHON}/lib-dynload").glob("*.so")
    found: dict[str, Path] = {}
    for file in (prefix / f"bin/python{PYTHON}", *modules):
        loads = re.findall(r"^\s*(\S+) => (/\S+)", output_of("ldd", str(file)), re.MULTILINE)
        found.update((name, Path(path).resolve()) for name, path in loads)
    return found


# The container in the CI


def build_container() -> int:
    """Export the container, after providing a missing engine or base image.

    Returns:
        The exit status of the export, or 75 if no engine can be started or no base image can be
        obtained; the reason is printed.
    """
    try:
        _provide_engine()
        _provide_base()
    except SlcBuildError as error:
        sys.stderr.write(f"No script-language container: {error}\n")
        return os.EX_TEMPFAIL
    export = [sys.executable, "-m", "slc_build.export"]
    return subprocess.run(export, cwd=ROOT / "slc", check=False).returncode  # noqa: S603


def release_engine() -> None:
    """Stop the engine that :func:`build_container` started, and no other."""
    if _STARTED_BY_CI.exists():
        stop()
        _STARTED_BY_CI.unlink()


def _provide_engine() -> None:
    choose_engine()
    if engine_info("ServerVersion"):
        return
    if missing("dockerd", "docker"):
        _apt_install("docker.io")
    if missing("docker"):  # newer releases have the command in a separate package
        _apt_install("docker-cli")
    OUTPUT.mkdir(exist_ok=True)
    _STARTED_BY_CI.touch()
    start()


def _provide_base() -> None:
    # The private engine has no network, so it cannot pull
    if image(base_image()) is None and os.environ.get("DOCKER_HOST") != private_engine():
        with suppress(SlcBuildError):
            output_of("timeout", str(_PULL_TIMEOUT_S), "docker", "pull", "--quiet", base_image())
    if image(base_image()) is None:
        if missing("debootstrap"):
            _apt_install("debootstrap")
        try:
            python_to_copy(PYTHON)
        except SlcBuildError:
            output_of("uv", "python", "install", "--quiet", PYTHON)
    make_base()


def _apt_install(package: str) -> None:
    if os.geteuid() != 0 or missing("apt-get"):
        raise SlcBuildError(f"{package} is not installed: as root, apt-get install {package}")
    _update_list_of_packages()
    output_of(
        *("apt-get", "install", "-y", "-qq", "--no-install-recommends", package),
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )


@cache
def _update_list_of_packages() -> None:
    with suppress(SlcBuildError):  # an older list may be enough
        output_of("apt-get", "update", "-qq")


def main() -> int:
    """Run the command named on the command line; return 1 if it fails."""
    actions = {"start": start, "stop": stop, "status": status, "remove": remove}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    engine = commands.add_parser("engine", help="a private Docker engine, if none runs")
    engine.add_argument("action", choices=actions, help="remove: stop it and delete its images")
    commands.add_parser("base", help="a stand-in for the base image, if it is missing")
    commands.add_parser("container", help="for the CI: engine, base image, export")
    commands.add_parser("release-engine", help="stop the engine that `container` started")
    options = parser.parse_args()
    try:
        if options.command == "container":
            return build_container()
        if options.command == "engine":
            actions[options.action]()
        elif options.command == "base":
            make_base()
        else:
            release_engine()
    except SlcBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
