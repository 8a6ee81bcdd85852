"""Atomic writing of files."""

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
    """Open a file that gets the name ``target`` when the block ends without an exception.

    On Linux, with most file systems, the file has no name until then, so that a killed process
    leaves no file behind. Elsewhere it is a hidden file beside the target, removed on any
    exception. An existing target is replaced atomically, or left unchanged.

    Args:
        target: the path, in a directory that exists.

    Raises:
        OSError: the file cannot be written; the error names ``target``.
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
        # the error of a failed write names no file, or a temporary one that the user does not know
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
        # Unsupported by the file system, or no directory; for the latter, _named_file raises.
        return None


@cache
def _has_proc() -> bool:
    return Path(_DESCRIPTORS).exists()


def _give_name(descriptor: int, target: Path) -> None:
    try:
        _link(descriptor, target)
    except FileExistsError:
        # A link cannot replace a file, but a rename can: the new file needs a temporary name.
        temporary = _hidden_name(target)
        _link(descriptor, temporary)
        try:
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise


def _link(descriptor: int, name: Path) -> None:
    # src_dir_fd has no effect with an absolute path, but makes Python call linkat(2), the only call
    # that follows the link in /proc; see open(2) about O_TMPFILE.
    os.link(f"{_DESCRIPTORS}/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


def _hidden_name(target: Path) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")


def _is_temporary(name: str | None) -> bool:
    return name is None or name.startswith(_DESCRIPTORS) or name.endswith(_SUFFIX)


@contextmanager
def _named_file(target: Path) -> Iterator[BinaryIO]:
    # not mkstemp, whose files only the owner may read: a download has the mode of any new file
    name = _hidden_name(target)
    with name.open("xb") as file:
        try:
            yield file
            file.flush()
            name.replace(target)
        except BaseException:
            name.unlink()
            raise
