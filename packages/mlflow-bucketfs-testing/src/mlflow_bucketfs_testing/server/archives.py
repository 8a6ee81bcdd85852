"""Archives: which keys BucketFS unpacks, and unpacking them without leaving the directory."""

from __future__ import annotations

import tarfile
import zipfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# No normative list exists; this is the union of what Exasol's own clients treat as archives
# (bucketfs-java UnsynchronizedBucket, exasol-testcontainers ScriptLanguageContainerInstaller).
SUFFIXES = (".tar.gz", ".tar.bz2", ".tgz", ".tar", ".zip")


def stem(key: str) -> str | None:
    """The path an archive is unpacked to: its key without the suffix; None for other keys."""
    for suffix in SUFFIXES:
        if key.endswith(suffix) and not f"/{key}".endswith(f"/{suffix}"):
            return key.removesuffix(suffix)
    return None


def unpack(key: str, archive: IO[bytes], directory: Path, go_on: Callable[[], bool]) -> bool:
    """Unpack an archive; members that would leave the directory are left out.

    Args:
        key: Decides the format by its suffix.
        archive: The archive's bytes, seekable.
        directory: Existing empty directory to fill.
        go_on: Asked before each member; False gives up.

    Returns:
        Whether all of it was unpacked. False: broken, of another format, or given up.
    """
    try:
        if key.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    if not go_on():
                        return False
                    zipped.extract(entry, directory)  # drops ".." and absolute prefixes itself
            return True
        with tarfile.open(fileobj=archive, mode="r:*") as tarred:
            for member in tarred:
                if not go_on():
                    return False
                with suppress(tarfile.FilterError):  # would leave the directory
                    tarred.extract(member, directory, filter="data")
    # Whatever a damaged file makes the parsers raise: BucketFS does not unpack it and says nothing.
    except Exception:  # noqa: BLE001
        return False
    return True
