"""Commands in an unpacked container without Docker: as root, in new Linux namespaces.

`isolated` writes a description of the container to a file, and yields a command line of ``unshare``
that runs this module as a script. The script mounts the described file system and replaces itself
by the command. The container's folder is not changed, and all processes end with the first one. The
script imports only the standard library, so that it starts fast.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_UNSHARE = (
    *("unshare", "--mount", "--net", "--ipc", "--uts", "--pid"),
    *("--fork", "--kill-child", "--"),
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ("full", "null", "random", "urandom", "zero")
_USER = 500
_NOT_FOUND = 127  # as in shells

# Constants of Linux for which Python has no names
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 63
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


@contextmanager
def isolated(
    root: Path,
    command: Sequence[str],
    *,
    mounts: Mapping[str, str | os.PathLike[str]],
    environment: Mapping[str, str],
) -> Iterator[list[str]]:
    """Yield a command line that runs a command in an unpacked container.

    The command has only its own loopback network, a read-only file system with an empty ``/tmp``,
    and user 500 without capabilities. It does not see other processes.

    Args:
        root: folder of the unpacked container.
        command: program and arguments.
        mounts: read-only folders: absolute path in the container → path on this machine.
        environment: variables of the command, in addition to ``PATH``.
    """
    # In a file that other users cannot read, because the variables may contain passwords
    with TemporaryDirectory(prefix="slc-") as folder:
        description = Path(folder, "description.json")
        text = json.dumps(
            {
                "root": os.fspath(root),
                "command": list(command),
                "mounts": {
                    inside: os.fspath(Path(here).absolute()) for inside, here in mounts.items()
                },
                "environment": {"PATH": _PATH, **environment},
            }
        )
        description.write_text(text, encoding="utf-8")
        yield [*_UNSHARE, sys.executable, "-I", "-S", __file__, os.fspath(description)]


def main(description: str) -> None:
    """Replace this process, in its namespaces, by the command that a file describes.

    Args:
        description: path of the file.
    """
    file = Path(description)
    given = json.loads(file.read_text(encoding="utf-8"))
    # Removed here, because the process that wrote it may have been killed
    file.unlink()
    root = _file_system(file.parent, given["root"], given["mounts"])
    _loopback()
    os.chroot(root)
    os.chdir("/")
    _no_privileges()
    command, environment = given["command"], given["environment"]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 -- the caller's command
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(_NOT_FOUND)


def _file_system(base: Path, lower: str, mounts: Mapping[str, str]) -> Path:
    """Mount the container's file system, which only this namespace sees; return its root."""
    # Bind-mounted as `lower`, so that the overlay does not parse the folder's name as options
    _mount("tmpfs", base, "-t", "tmpfs")
    parts = {name: base / name for name in ("lower", "upper", "work", "root")}
    for part in parts.values():
        part.mkdir()
    _mount(lower, parts["lower"], "--bind")
    root = parts["root"]
    layers = ",".join(f"{name}dir={parts[name]}" for name in ("lower", "upper", "work"))
    _mount("overlay", root, "-t", "overlay", "-o", layers)
    for name, kind, options in (
        ("proc", "proc", "nosuid,nodev,noexec"),
        ("dev", "tmpfs", "nosuid,mode=755"),
        ("tmp", "tmpfs", "nosuid,nodev,mode=1777"),
    ):
        _mount(kind, _made(root / name), "-t", kind, "-o", options)
    for device in _DEVICES:
        (root / "dev" / device).touch()
        _mount(f"/dev/{device}", root / "dev" / device, "--bind")
    _mount("tmpfs", _made(root / "dev" / "shm"), "-t", "tmpfs", "-o", "nosuid,nodev,mode=1777")
    for inside, here in sorted(mounts.items()):
        target = _made(root / inside.lstrip("/"))
        _mount(here, target, "--bind")
        _mount("none", target, "-o", "remount,bind,ro")
    _mount("none", root, "-o", "remount,ro")
    return root


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _mount(source: str, target: Path, *options: str) -> None:
    done = subprocess.run(  # noqa: S603 -- our own command
        ["mount", *options, source, os.fspath(target)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"cannot mount {source} for the container: {done.stderr.strip()}")


def _loopback() -> None:
    with socket.socket() as any_socket:
        request = struct.pack("16sh22x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _no_privileges() -> None:
    libc = ctypes.CDLL(None)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(_USER)
    os.setuid(_USER)
    # The change of the user cleared the signal that --kill-child had set
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1])
