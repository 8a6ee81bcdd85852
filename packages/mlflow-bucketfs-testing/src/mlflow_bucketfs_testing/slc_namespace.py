"""Commands in an unpacked container without Docker: in Linux namespaces of their own, as root.

`isolated` describes the surroundings in a file, and yields a command of `unshare` that runs this
file as a script. The script builds what the description says and becomes the command. Nothing is
written to the container's folder, and everything ends with the first process. So that the script
starts at once, it imports nothing but the standard library.
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
_NOT_FOUND = 127  # as shells say it

# Numbers of Linux that Python has no names for
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
    """Yield the command of this machine that runs a command in a container's folder.

    It has no network but a loopback of its own, a read-only file system with an empty ``/tmp``,
    user 500 without capabilities, and sees no other process.

    Args:
        root: the container, unpacked.
        command: program and arguments.
        mounts: folders to see, read-only: absolute path in the container → path here.
        environment: all the variables that the command gets.
    """
    # The variables may hold passwords: in a file of ours, other users do not see them
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
    """Become the command that a file describes, in the namespaces that this process is in.

    Args:
        description: path of the file.
    """
    file = Path(description)
    given = json.loads(file.read_text(encoding="utf-8"))
    # Nothing stays behind, even if nobody is left to remove it
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
    """Put the container's folder together with what it sees; only this namespace has it."""
    # Its name must not be read as an option of the overlay
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
    # What --kill-child asked for was lost with the change of the user
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1])
