"""Check models: the ``MLmodel`` file, and the parts that it names.

A model whose ``MLmodel`` has flavors is complete, because that file is uploaded last.

MLflow loads a model from the mount after this package has returned it, through links in a
temporary directory. An error then names the link, or no path (``Ran out of input``). So the parts
of a model are checked before, and errors name the mounted path.
"""

from __future__ import annotations

import logging
import os
import posixpath
import zipfile
from datetime import datetime, timezone
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from mlflow_bucketfs_core.errors import (
    IncompleteTransferError,
    ObjectNotFoundError,
    printable,
)
from mlflow_bucketfs_core.mounted import MLMODEL, in_logged_model
from mlflow_bucketfs_core.uri import strip_archive_suffix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

_logger = logging.getLogger(__name__)
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Keys under which a flavor in an MLmodel names the files and folders that it loads. Its environment
# (conda.yaml and others) is not among them, because models load without it. The first two name
# MLflow's own pickles and skops files; the content of the others depends on the flavor.
_SERIALIZED = ("python_model", "pickled_model")
_OTHERS = ("model_path", "data", "model_data")
# Files that MLflow adds after it has measured the size that it records in the MLmodel
_NOT_MEASURED = {
    MLMODEL,
    "conda.yaml",
    "python_env.yaml",
    "requirements.txt",
    "pyproject.toml",
    "uv.lock",
    "registered_model_meta",
}
# of pickle protocol 2 and later, the only ones that MLflow writes
_PICKLE_START, _PICKLE_END = b"\x80", b"."

# Key of the reason in the MLmodel of a model that is being overwritten
VOID_KEY = "incomplete_upload"

VARIABLES_IN_UDF = (
    "In a UDF, set variables by os.environ before the model is loaded, or by %env in the script."
)
MISSING_REMEDY = (
    "A fresh upload may not have reached this node yet. To read missing files over HTTP, "
    f"set EXA_BUCKETFS_MOUNT_FALLBACK=http. {VARIABLES_IN_UDF}"
)


class CheckedModel(NamedTuple):
    """A model that has the files that its ``MLmodel`` names.

    Attributes:
        loaded: names of the parts that MLflow itself deserializes.
        has_saved_size: whether its files have exactly as many bytes as when it was saved.
    """

    loaded: frozenset[str]
    has_saved_size: bool


def is_mlmodel(name: str) -> bool:
    """Return whether a path names an ``MLmodel`` file."""
    return name.rpartition("/")[2] == MLMODEL


def mlmodels_inside_out(names: Iterable[str]) -> list[list[str]]:
    """Group the ``MLmodel`` files among some names by depth, the deepest first."""
    models = sorted(filter(is_mlmodel, names), key=_depth, reverse=True)
    return [list(group) for _, group in groupby(models, key=_depth)]


def _depth(name: str) -> int:
    return name.count("/")


def belongs_to_model(name: str, mlmodel: str) -> bool:
    """Return whether a file lies in, or below, the directory of an ``MLmodel`` file."""
    return name.startswith(mlmodel.removesuffix(MLMODEL))


def in_any_model(name: str, mlmodels: Iterable[str]) -> bool:
    """Return whether a file belongs to the model of one of these ``MLmodel`` files."""
    return any(belongs_to_model(name, mlmodel) for mlmodel in mlmodels)


def void_mlmodel() -> bytes:
    """Return the content of ``MLmodel`` for a model that is being overwritten.

    It names no flavors, so that :func:`check_model` and MLflow refuse the model. (For an empty
    file or plain text, MLflow would fail without reporting the reason.)
    """
    began = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    text = (
        f"An upload over this model began on {began} and has not been completed. Its files may be "
        "partly old and partly new. If the upload is not still running, log the model again."
    )
    return yaml.safe_dump({VOID_KEY: text}, width=10_000).encode()


def warn_of_void(mlmodel: Path) -> None:
    """Warn if a downloaded model is incomplete; MLflow would only report a missing flavor."""
    with mlmodel.open("rb") as file:
        line = file.readline(1 << 10)
    if line.startswith(f"{VOID_KEY}: ".encode()):
        reason = line.decode("utf-8", "replace").partition(": ")[2].rstrip()
        _logger.warning("%s", printable(f"{mlmodel}: {reason}"))


def check_model(model: Path, files: Mapping[str, Path]) -> CheckedModel:
    """Check that a model has the files that its ``MLmodel`` names, and that none is truncated.

    Damage that only loading reveals is not found. If the total size is smaller than when the model
    was saved, only a warning is logged, because an input example may have been deleted.

    Args:
        model: a directory with an ``MLmodel``.
        files: all files below it, by their relative names.

    Raises:
        ObjectNotFoundError: a part is missing, for example an archive, which BucketFS unpacks.
        IncompleteTransferError: a part, or the ``MLmodel``, is truncated or damaged, or the
            model is being overwritten.
        OSError: one of them cannot be read.
    """
    mlmodel = _read_mlmodel(model / MLMODEL)
    flavors = [flavor for flavor in mlmodel["flavors"].values() if isinstance(flavor, dict)]
    saved = mlmodel.get("model_size_bytes")
    loaded = frozenset(part for flavor in flavors for part in _loaded_parts(flavor))
    named = dict.fromkeys(part for flavor in flavors for part in _named_parts(flavor))
    _refuse_unpacked_archives(model, files, flavors, named)
    for part in named:
        if _has(files, part):
            continue
        # if no byte is missing, it is an empty folder, which BucketFS cannot store
        if part in loaded or not isinstance(saved, int) or _size(files, "code/") < saved:
            raise ObjectNotFoundError(
                f"{model / part} does not exist, but {model / MLMODEL} names it. {MISSING_REMEDY}"
            )
    for part in loaded:
        if part in files:
            _check_content(files[part])
    return CheckedModel(loaded, _has_saved_size(model, files, saved))


def _refuse_unpacked_archives(
    model: Path,
    files: Mapping[str, Path],
    flavors: list[dict[str, Any]],
    named: Collection[str],
) -> None:
    # any text in a flavor is the name of an archive if the folder of that archive exists
    for name in _relative(_texts(flavors)):
        folder = strip_archive_suffix(name)
        if folder == name or name in files:
            continue
        if name in named or any(file.startswith(f"{folder}/") for file in files):
            raise ObjectNotFoundError(
                f"{model / name} does not exist, but {model / MLMODEL} names it: BucketFS unpacks "
                "archives, and shows their content instead of the file. To read such a model over "
                "HTTP, set EXA_BUCKETFS_MOUNT_FALLBACK=http; or log it with the archive under "
                f"another suffix, such as .zipx. {VARIABLES_IN_UDF}"
            )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _read_mlmodel(path: Path) -> dict[str, Any]:
    text = path.read_bytes()
    try:
        content = yaml.load(text, _YamlLoader)  # noqa: S506 -- a safe one
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid time
        raise _damaged_error(path, " ".join(str(error).split())) from error
    if isinstance(content, dict) and VOID_KEY in content:
        raise IncompleteTransferError(f"{path}: {content[VOID_KEY]}")
    if not isinstance(content, dict) or not isinstance(content.get("flavors"), dict):
        raise _damaged_error(path, "it names no flavors")
    # MLflow sorts the keys: an MLmodel that it wrote begins with artifact_path and ends with
    # utc_time_created. A hand-written one may omit both, and the last line break.
    if "utc_time_created" not in content:
        if "artifact_path" in content:
            raise _damaged_error(path, "it ends before utc_time_created")
        if not text.endswith(b"\n"):
            if in_logged_model(str(path.parent)):
                raise _damaged_error(path, "it ends within a line")
            _logger.warning("%s ends within a line. It may be truncated.", printable(str(path)))
    return content


def _loaded_parts(flavor: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a flavor that MLflow itself deserializes."""
    yield from _relative(flavor.get(name) for name in _SERIALIZED)


def _named_parts(flavor: dict[str, Any]) -> Iterator[str]:
    """Yield all parts that a flavor names."""
    named = [flavor.get(name) for name in (*_SERIALIZED, *_OTHERS)]
    if isinstance(artifacts := flavor.get("artifacts"), dict):
        named += [a.get("path") for a in artifacts.values() if isinstance(a, dict)]
    if isinstance(code := flavor.get("model_code_path"), str):
        named.append(posixpath.basename(code))  # the only part that MLflow uses
    yield from _relative(named)


def _relative(named: Iterable[object]) -> Iterator[str]:
    for part in named:
        # third-party flavors may use these keys for other values, such as URIs
        if not part or not isinstance(part, str) or ":/" in part:
            continue
        path = posixpath.normpath(part)
        # paths out of the model, and its own directory, are left to MLflow
        if not path.startswith(("/", ".")):
            yield path


def _has(files: Mapping[str, Path], part: str) -> bool:
    # a part is a file, a folder, or the common prefix of several files
    return part in files or any(name.startswith((f"{part}/", f"{part}.")) for name in files)


def _check_content(path: Path) -> None:
    with path.open("rb") as file:
        if path.suffix == ".skops" and not zipfile.is_zipfile(file):
            raise _damaged_error(path, "it is not a complete zip file")
        if path.suffix == ".pkl" and not _is_pickle(file):
            raise _damaged_error(path, "it is not a complete pickle")


def _is_pickle(file: BinaryIO) -> bool:
    start = file.read(1)
    file.seek(-len(start), os.SEEK_END)
    return (start, file.read(1)) == (_PICKLE_START, _PICKLE_END)


def _has_saved_size(model: Path, files: Mapping[str, Path], saved: object) -> bool:
    if not isinstance(saved, int):
        return False
    there = _size(files)
    if there < saved:
        _logger.warning(
            "The files in %s have %d bytes in total, but had %d when the model was saved. If "
            "loading fails, a file may be truncated or missing.",
            printable(str(model)),
            there,
            saved,
        )
    return there == saved


def _size(files: Mapping[str, Path], *without: str) -> int:
    return sum(
        file.stat().st_size
        for name, file in files.items()
        if name not in _NOT_MEASURED and not name.startswith(without)
    )


def _damaged_error(path: Path, reason: str) -> IncompleteTransferError:
    return IncompleteTransferError(f"{path} is truncated or damaged: {reason}. {MISSING_REMEDY}")
