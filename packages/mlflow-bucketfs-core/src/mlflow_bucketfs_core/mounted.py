"""Buckets as UDFs see them: directories below ``/buckets``, read-only, without HTTP."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_bucketfs_core.errors import UnsafeEntryError
from mlflow_bucketfs_core.hosts import any_rule_matches
from mlflow_bucketfs_core.settings import DEFAULT_MOUNT_ROOT, ConnectionSettings
from mlflow_bucketfs_core.uri import BucketFSUri, is_bucketfs_uri, strip_archive_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_logger = logging.getLogger(__name__)
_Model = TypeVar("_Model")
_over_http: ContextVar[bool] = ContextVar("mlflow_bucketfs_over_http", default=False)

# The path of a logged model in MLflow 3: <experiment>/models/m-<32 hex digits>/artifacts
_LOGGED_MODEL = re.compile(r"(^|/)models/m-[0-9a-f]{32}/artifacts(?P<below>/|$)")
MLMODEL = "MLmodel"

# Errors for a missing file. All others, such as missing permissions, are raised.
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@contextmanager
def reading_over_http() -> Iterator[None]:
    """Make this thread read over HTTP inside the block, even if a bucket is mounted."""
    token = _over_http.set(True)
    try:
        yield
    finally:
        _over_http.reset(token)


def reads_over_http() -> bool:
    """Return whether this thread is in a block of :func:`reading_over_http`."""
    return _over_http.get()


def bucket_udf_path(uri: BucketFSUri, mount_root: str = DEFAULT_MOUNT_ROOT) -> str:
    """Return the directory under which UDFs see the URI's bucket.

    Raises:
        InvalidUriError: the URI names no bucket.
    """
    uri.require_bucket()
    return "/".join((mount_root.rstrip("/"), uri.service, uri.bucket))


def in_logged_model(key: str) -> bool:
    """Return whether a key is the folder of a model that MLflow logged, or is below it."""
    return _LOGGED_MODEL.search(key) is not None


def exists_on_mount(path: str, root: str) -> bool:
    """Return whether a file or folder is on the mount.

    The folder of a logged model exists only once it has its ``MLmodel``, which is uploaded last.

    Args:
        path: a path below the directory of a bucket.
        root: that directory, with all links resolved.

    Raises:
        UnsafeEntryError: a link leads out of the bucket, or it is a named pipe or the like.
        OSError: it cannot be accessed, for example without permission; the error names it.
    """
    match = _LOGGED_MODEL.search(path)
    needed = f"{path}/{MLMODEL}" if match and not match["below"] else path
    resolve_inside(needed, root)
    try:
        # os.path.exists returns False for a path without permission
        mode = os.stat(needed).st_mode  # noqa: PTH116
    except OSError as error:
        if error.errno in _MISSING:
            return False
        raise
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise _not_regular_error(needed)
    return True


def resolve_inside(path: str, root: str) -> str:
    """Resolve all links in a path below a mounted bucket; it need not exist.

    An archive that BucketFS has unpacked may contain links to any path.

    Args:
        path: a path below the bucket's directory.
        root: that directory, with all links resolved.

    Raises:
        UnsafeEntryError: a link leads out of the bucket.
    """
    real = os.path.realpath(path)
    if real != root and not real.startswith(f"{root}/"):
        raise UnsafeEntryError(
            f"{path} leads to {real}, out of the bucket {root}. Links are followed within a "
            "bucket only: store the file itself."
        )
    return real


def resolve_entry(entry: os.DirEntry[str], root: str) -> str:
    """Return the path of an entry of a mounted folder, or the target of a link.

    For an entry that is not a link, this needs no system call.

    Raises:
        UnsafeEntryError: a link leads out of the bucket, or it is a named pipe or the like.
        OSError: the target of a link does not exist; the error names the link.
    """
    path = resolve_inside(entry.path, root) if entry.is_symlink() else entry.path
    if not entry.is_file() and not entry.is_dir():
        entry.stat()  # raises if it does not exist
        raise _not_regular_error(entry.path)
    return path


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; opening a named pipe would block forever.

    Args:
        path: a file on the mount, as :func:`resolve_inside` returns it.

    Raises:
        UnsafeEntryError: it is not a regular file.
        OSError: it cannot be opened.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 -- Path has no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular_error(os.fspath(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    # O_NONBLOCK has an effect on named pipes and devices only
    return os.open(path, flags | os.O_NONBLOCK)


def _not_regular_error(path: str) -> UnsafeEntryError:
    return UnsafeEntryError(
        f"{path} is not a regular file and is not read: opening a named pipe would block forever. "
        "Delete it, or the archive that it came from."
    )


def udf_path(uri: BucketFSUri | str) -> str:
    """Return the path under which UDFs see a file or folder of BucketFS; it need not exist.

    BucketFS unpacks archives for UDFs, so ``…/m.tar.gz`` is seen as the directory ``…/m``.

    Args:
        uri: a BucketFS URI.

    Raises:
        InvalidUriError: not a BucketFS URI, or one without a bucket.
    """
    parsed = BucketFSUri.parse(uri) if isinstance(uri, str) else uri
    return _path_below(bucket_udf_path(parsed), parsed)


def mounted_path(uri: BucketFSUri | str, settings: ConnectionSettings | None = None) -> str | None:
    """Return the path under which this process sees a file or folder of BucketFS, if it exists.

    The folder of a logged model without its ``MLmodel`` counts as missing.

    Args:
        uri: a BucketFS URI.
        settings: ``mount_root`` and ``mount_hosts``; from the environment if ``None``.

    Returns:
        An existing path below the mount root, or ``None``.

    Raises:
        InvalidUriError: not a BucketFS URI, or one without a bucket.
        ConfigurationError: an environment variable has a bad value.
        UnsafeEntryError: a link leads out of the bucket, or it is a named pipe or the like.
        OSError: the path cannot be accessed; the error names it.
    """
    parsed = BucketFSUri.parse(uri) if isinstance(uri, str) else uri
    settings = ConnectionSettings.from_env() if settings is None else settings
    if reads_over_http():
        return None
    if settings.mount_hosts is not None and not any_rule_matches(settings.mount_hosts, parsed):
        return None
    directory = bucket_udf_path(parsed, settings.mount_root)
    path = _path_below(directory, parsed)
    return path if exists_on_mount(path, os.path.realpath(directory)) else None


def local_path_or_uri(uri: str) -> str:
    """Return the mounted path of a BucketFS URI if it exists, else the URI itself.

    Args:
        uri: any URI; those of other schemes are returned unchanged.

    Raises:
        InvalidUriError: a malformed URI with a scheme of BucketFS.
        OSError: see :func:`mounted_path`.
    """
    if not is_bucketfs_uri(uri):
        return uri
    return mounted_path(uri) or uri


def load_model_with_fallback(uri: str, load_func: Callable[..., _Model], **kwargs: Any) -> _Model:
    """Load a model from the mount, with HTTP as the fallback.

    HTTP is used if the model is not on the mount, or if loading it from the mount fails,
    regardless of ``EXA_BUCKETFS_MOUNT_FALLBACK``.

    Args:
        uri: any URI that ``load_func`` takes; those of other schemes are passed on unchanged.
        load_func: for example ``mlflow.sklearn.load_model``; called with a path or URI.
        kwargs: passed on to ``load_func``.

    Returns:
        The result of ``load_func``.

    Raises:
        InvalidUriError: a malformed URI with a scheme of BucketFS.
        ConfigurationError: an environment variable has a bad value.
        Exception: raised by ``load_func`` over HTTP; a failure on the mount is its context.
    """
    if not is_bucketfs_uri(uri):
        return load_func(uri, **kwargs)
    parsed, settings = BucketFSUri.parse(uri).require_bucket(), ConnectionSettings.from_env()
    try:
        path = mounted_path(parsed, settings)
        if path is not None:
            return load_func(path, **kwargs)
    except Exception as error:  # noqa: BLE001 -- a model's own code may raise anything
        path = _path_below(bucket_udf_path(parsed, settings.mount_root), parsed)
        reason = f"{type(error).__name__}: {error}"
        _logger.warning("Cannot load %s from %s, trying HTTP: %s", uri, path, reason)
        return _load_over_http(uri, load_func, kwargs)
    _logger.info("%s is not mounted here: reading over HTTP", uri)
    return _load_over_http(uri, load_func, kwargs)


def _load_over_http(uri: str, load_func: Callable[..., _Model], kwargs: dict[str, Any]) -> _Model:
    with reading_over_http():
        return load_func(uri, **kwargs)


def _path_below(directory: str, uri: BucketFSUri) -> str:
    return f"{directory}/{strip_archive_suffix(uri.path)}" if uri.path else directory
