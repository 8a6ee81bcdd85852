"""Trees of artifacts: local directories, listings, and the models in them."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import UnsafeEntryError
from mlflow_bucketfs_core.mounted import MLMODEL, resolve_entry
from mlflow_bucketfs_core.uri import join_key, parent_folders

if TYPE_CHECKING:
    from collections.abc import Iterable


def files_below(directory: Path, *, bucket_root: str | None = None) -> dict[str, Path]:
    """Find all files below a directory, hidden ones and those behind links included.

    Args:
        directory: where to start.
        bucket_root: for a directory on the mount, that of its bucket, without links in it: links
            must not lead out of it, and everything must be a regular file or a directory.

    Returns:
        Paths by their name relative to the directory, separated by ``/``, in sorted order; on the
        mount, what a link leads to in place of the link.

    Raises:
        UnsafeEntryError: on the mount, see ``bucket_root``, or as below.
        OSError: a directory cannot be read, or a link leads back to one of its parents.
    """
    found: dict[str, Path] = {}
    _collect(directory, "", (os.path.realpath(directory),), found, bucket_root)
    return dict(sorted(found.items()))


def _collect(
    directory: Path,
    prefix: str,
    above: tuple[str, ...],
    found: dict[str, Path],
    bucket_root: str | None,
) -> None:
    # os.walk would skip unreadable directories and those behind links, without a word
    with os.scandir(directory) as entries:
        for entry in entries:
            name = join_key(prefix, entry.name)
            path = entry.path if bucket_root is None else resolve_entry(entry, bucket_root)
            if not entry.is_dir():
                found[name] = Path(path)
                continue
            real = os.path.realpath(path)
            if real in above:
                kind = OSError if bucket_root is None else UnsafeEntryError
                raise kind(f"The link {entry.path} leads back to {real}, one of its own parents.")
            _collect(Path(path), name, (*above, real), found, bucket_root)


def is_mlmodel(name: str) -> bool:
    """Tell whether a path names the file whose presence means that a model is complete."""
    return name.rpartition("/")[2] == MLMODEL


def mlmodels_inside_out(names: Iterable[str]) -> list[list[str]]:
    """Group the ``MLmodel`` files among some names by depth, the deepest first."""
    models = sorted(filter(is_mlmodel, names), key=_depth, reverse=True)
    return [list(group) for _, group in groupby(models, key=_depth)]


def _depth(name: str) -> int:
    return name.count("/")


def belongs_to_model(name: str, mlmodel: str) -> bool:
    """Tell whether a file lies in, or below, the directory of an ``MLmodel`` file."""
    return name.startswith(mlmodel.removesuffix(MLMODEL))


def split_shadowed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate the files that a directory of the same name hides.

    BucketFS can hold ``d`` and ``d/x``; a local directory cannot.

    Returns:
        the names that can exist together, and those that cannot beside them.
    """
    names = list(names)
    folders = {folder for name in names for folder in parent_folders(name)}
    return [n for n in names if n not in folders], [n for n in names if n in folders]
