"""Archives: which keys BucketFS unpacks, and unpacking them without leaving the directory.

The standard library's own checks are not relied on: ``filter="data"`` of many Python versions lets
the links of CVE-2025-4517 pass, and ``zipfile`` knows no links. Here nothing is written through a
link, and no link can lead out of the tree.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_logger = logging.getLogger("mlflow_bucketfs_testing.server")

# The four that Exasol documents (docs.exasol.com, "Database access in BucketFS") and bucketfs-java
# has. Other archives, such as .tar.bz2, stay files.
SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

_DEFAULT_MODE = 0o644
# Its owner can read every file, nobody else can write to it, and none runs as somebody else.
_LEAST_MODE = 0o600
_GREATEST_MODE = 0o755
_MAX_TARGET_BYTES = 4096
# Errors of a member that contradicts those before it, or whose name is too long
_MISFITS = {errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class _RefusedError(Exception):
    """A member must not be unpacked; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One entry of an archive of any format.

    Attributes:
        name: Path in the archive, as it stands there.
        kind: ``file``, ``folder``, ``symlink``, ``hardlink``; None: anything else.
        mode: Permission bits; 0 if the archive has none.
        modified: Time of the last change, in seconds since the epoch; None if it is not kept.
        target: Target of a link.
        open: Opens the content of a file.
    """

    name: str
    kind: str | None
    mode: int
    modified: float | None
    target: str
    open: Callable[[], IO[bytes] | None]


def stem(key: str) -> str | None:
    """The path an archive is unpacked to: its key without the suffix; None for other keys."""
    for suffix in SUFFIXES:
        if key.endswith(suffix) and not f"/{key}".endswith(f"/{suffix}"):
            return key.removesuffix(suffix)
    return None


def unpack(key: str, archive: IO[bytes], directory: Path, go_on: Callable[[], bool]) -> bool:
    """Unpack an archive; members that could lead out of the directory are left out and logged.

    Args:
        key: Decides the format by its suffix.
        archive: The archive's bytes, seekable.
        directory: Existing empty directory to fill.
        go_on: Asked before each member; False gives up.

    Returns:
        Whether all of it was unpacked. False: broken, of another format, or given up.
    """
    try:
        for member in (_zip_members if key.endswith(".zip") else _tar_members)(archive):
            if not go_on():
                return False
            try:
                _unpack_member(member, directory)
            except _RefusedError as error:
                _logger.warning("%s: the member %r is not unpacked: %s", key, member.name, error)
    # Whatever a damaged file makes the parsers raise: BucketFS does not unpack it and says nothing.
    except Exception:  # noqa: BLE001
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether there is a directory, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def parents_are_folders(root: Path, names: Sequence[str]) -> bool:
    """Whether a path below a directory is reached without following a link.

    Args:
        root: Existing directory.
        names: Names on the path, the outermost first; the last one may be anything.
    """
    return all(is_folder(root.joinpath(*names[:depth])) for depth in range(1, len(names)))


def make_folders(root: Path, names: Sequence[str], *, replace: bool) -> Path:
    """Make folders below each other without following a link.

    Args:
        root: Existing directory.
        names: Names of the folders, the outermost first.
        replace: Whether they replace files and links.

    Returns:
        The innermost folder.

    Raises:
        FileExistsError: A file or a link is in the way.
    """
    folder = root
    for name in names:
        folder /= name
        if not is_folder(folder):
            if replace:
                folder.unlink(missing_ok=True)
            folder.mkdir()
    return folder


def _tar_members(archive: IO[bytes]) -> Iterator[_Member]:
    kinds = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink"}
    with tarfile.open(fileobj=archive, mode="r:*") as tarred:
        for info in tarred:
            yield _Member(
                name=info.name,
                kind="file" if info.isreg() else kinds.get(info.type),
                mode=info.mode,
                modified=info.mtime,
                target=info.linkname,
                open=partial(tarred.extractfile, info),
            )


def _zip_members(archive: IO[bytes]) -> Iterator[_Member]:
    # 0: not written by a Unix system
    kinds = {stat.S_IFREG: "file", 0: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else kinds.get(stat.S_IFMT(mode))
            target = b""
            if kind == "symlink":
                with zipped.open(info) as content:
                    target = content.read(_MAX_TARGET_BYTES)  # as many are too many for Linux
            yield _Member(
                name=info.filename,
                kind=kind,
                mode=mode,
                modified=None,  # in an unknown time zone
                target=os.fsdecode(target),
                open=partial(zipped.open, info),
            )


def _unpack_member(member: _Member, directory: Path) -> None:
    try:
        _make(member, directory)
    except OSError as error:
        if error.errno in _MISFITS:
            raise _RefusedError(error.strerror) from error
        raise


def _make(member: _Member, directory: Path) -> None:
    names = _names(member.name)
    if member.kind == "folder":
        make_folders(directory, names, replace=False)
        return
    if not names:
        raise _RefusedError("it has no name")
    path = make_folders(directory, names[:-1], replace=False) / names[-1]
    if member.kind == "file":
        _write_file(member, path)
    elif member.kind == "symlink":
        _check_target(member.target, depth=len(names) - 1)
        path.unlink(missing_ok=True)
        path.symlink_to(member.target)
    elif member.kind == "hardlink":
        _link_file(directory, _names(member.target), path)
    else:
        raise _RefusedError("it is neither a file nor a folder nor a link")


def _write_file(member: _Member, path: Path) -> None:
    content = member.open()
    if content is None:
        raise _RefusedError("it has no content")
    path.unlink(missing_ok=True)  # of several members of one name, the last one counts
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
        mode = stat.S_IMODE(member.mode) or _DEFAULT_MODE
        os.fchmod(file.fileno(), mode & _GREATEST_MODE | _LEAST_MODE)
    if member.modified is not None:
        with suppress(OSError, OverflowError, ValueError):
            os.utime(path, (member.modified, member.modified))


def _link_file(directory: Path, names: Sequence[str], path: Path) -> None:
    source = directory.joinpath(*names)
    if not parents_are_folders(directory, names) or not stat.S_ISREG(source.lstat().st_mode):
        raise _RefusedError("its target is not a file that was unpacked before")
    if source != path:
        path.unlink(missing_ok=True)
        os.link(source, path)


def _names(path: str) -> list[str]:
    names = [name for name in path.split("/") if name not in {"", "."}]
    if ".." in names or "\0" in path:
        raise _RefusedError(f"{path!r} may lead out of the archive's folder")
    return names


def _check_target(target: str, *, depth: int) -> None:
    """Refuse a symbolic link that could lead out of the tree.

    Its target must be relative, with ``..`` only at its start and at most once for each folder
    that the link is in. These folders are no links themselves, so the target begins in a folder
    of the tree, and from there it only descends; where it passes another link, the same is true
    of that one. Unlike a look at real paths, this holds whatever becomes of other links, and for
    paths of any length (``os.path.realpath`` stops at PATH_MAX, which is how CVE-2025-4517 works).

    Args:
        target: Target of the link.
        depth: Number of folders that the link is in.
    """
    names = [name for name in target.split("/") if name not in {"", "."}]
    ascents = next((i for i, name in enumerate(names) if name != ".."), len(names))
    if (
        not target
        or target.startswith("/")
        or "\0" in target
        or ascents > depth
        or ".." in names[ascents:]
    ):
        raise _RefusedError(f"its target {target!r} may lead out of the archive's folder")
