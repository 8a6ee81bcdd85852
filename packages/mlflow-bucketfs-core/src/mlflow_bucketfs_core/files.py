"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_DESCRIPTORS = "/proc/self/fd"
_SUFFIX = ".part"


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name ``target`` when the block ends without an exception.

    Until then it has no name at all where the system can do that (Linux, most file systems), so
    that even a killed process leaves nothing; elsewhere it is a hidden file beside the target,
    removed on any exception. An existing target is replaced at once or stays as it was.

    Args:
        target: in a directory that exists.

    Raises:
        OSError: the file cannot be written; names ``target``.
    """
    try:
        unnamed = _open_unnamed(target.parent)
        if unnamed is None:
            with _named_file(target) as file:
                yield file
            return
        with os.fdopen(unnamed, "w+b") as file:
            yield file
            file.flush()
            _give_name(file.fileno(), target)
    except OSError as error:
        # a failed write names no file, and whoever knows of no temporary one looks for it in vain
        if error.errno is None or not _is_temporary(error.filename):
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from None


def _open_unnamed(directory: Path) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not _has_proc():
        return None
    try:
        return os.open(directory, flag | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError:
        # The file system cannot do it, or the directory is not there; the named file tells which.
        return None


@cache
def _has_proc() -> bool:
    return Path(_DESCRIPTORS).exists()


def _give_name(descriptor: int, target: Path) -> None:
    try:
        _link(descriptor, target)
    except FileExistsError:
        # A link cannot replace; a rename can. Between the two the new file has a name of its own.
        temporary = _hidden_name(target)
        _link(descriptor, temporary)
        try:
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise


def _link(descriptor: int, name: Path) -> None:
    # The descriptor as src_dir_fd has no meaning beside an absolute path, but makes Python call
    # linkat(2), the only one that follows the link in /proc; see open(2) about O_TMPFILE.
    os.link(f"{_DESCRIPTORS}/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


def _hidden_name(target: Path) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")


def _is_temporary(name: str | None) -> bool:
    return name is None or name.startswith(_DESCRIPTORS) or name.endswith(_SUFFIX)


@contextmanager
def _named_file(target: Path) -> Iterator[BinaryIO]:
    # mkstemp makes files for the owner only; a download has the mode of any new file
    name = _hidden_name(target)
    with name.open("xb") as file:
        try:
            yield file
            file.flush()
            name.replace(target)
        except BaseException:
            name.unlink()
            raise
