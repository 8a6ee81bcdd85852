"""Upload, download and delete folders with parallel requests, and collect the failures."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.file_utils import ArtifactProgressBar
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    BucketFSError,
    HostNotAllowedError,
    MissingCredentialsError,
    TransferError,
    UnsafeEntryError,
    printable,
)
from mlflow_bucketfs_core.http.retry import abandoned_by
from mlflow_bucketfs_core.mounted import MLMODEL, resolve_entry
from mlflow_bucketfs_core.uri import join_key, parent_folders, split_key, strip_archive_suffix

from mlflow_bucketfs_plugin.mlflow_errors import NotTriedError, aggregated_error, enumerated
from mlflow_bucketfs_plugin.models import (
    belongs_to_model,
    in_any_model,
    is_mlmodel,
    mlmodels_inside_out,
    void_mlmodel,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlflow_bucketfs_core import Bucket, BucketFSUri

    from mlflow_bucketfs_plugin.mount import MountedBucket

_logger = logging.getLogger(__name__)

# Errors about the password, which is the same for all files of a bucket.
_REFUSALS = (
    AccessDeniedError,
    AuthenticationError,
    HostNotAllowedError,
    MissingCredentialsError,
)
# After this many refusals without a success, all other files would be refused, too. Fewer may
# concern single paths: older versions of BucketFS answer 403 for a path that was deleted a moment
# ago, and a proxy may refuse a name.
_ENOUGH_REFUSALS = 4
# Number of threads at the start. If each of them completes a file within a tick, further threads
# would only wait for the interpreter's lock. A real BucketFS takes a second per upload, so there
# are 16 threads after two ticks.
_FIRST_THREADS = 4
_TICK_S = 0.01
# interval between updates of the progress bar
_PROGRESS_S = 0.1
# Transfers that end so soon after Ctrl-C need no warning.
_GRACE_S = 0.5

# Buckets that this process has written to. Forked children inherit them, as intended. No lock,
# because a fork could leave it locked forever: adding and looking up are atomic.
_written: set[tuple[str, str, str]] = set()


def has_written(location: BucketFSUri) -> bool:
    """Return whether this process has written into a location's bucket."""
    return _bucket_key(location) in _written


@contextmanager
def noting_write(bucket: Bucket) -> Iterator[None]:
    """Record that the block wrote into a bucket, unless its error shows that it did not."""
    try:
        yield
    except BaseException as error:
        # other BucketFS errors, and those of local files, are raised before anything is stored
        is_certain = isinstance(error, BucketFSError | OSError)
        if not is_certain or isinstance(error, TransferError):
            _written.add(_bucket_key(bucket.uri))
        raise
    _written.add(_bucket_key(bucket.uri))


def _bucket_key(location: BucketFSUri) -> tuple[str, str, str]:
    return location.authority, location.service, location.bucket


def upload_folder(bucket: Bucket, folder: BucketFSUri, files: Mapping[str, Path]) -> None:
    """Upload files; upload an ``MLmodel`` last, and only if all other files of its model succeeded.

    An existing ``MLmodel`` is first replaced by one without flavors. So a model with flavors in
    its ``MLmodel`` is complete, even after an upload over it was interrupted.

    Args:
        bucket: the target bucket.
        folder: the target folder in the bucket.
        files: local files by their path within the folder.

    Raises:
        BucketFSError: the upload cannot succeed; nothing was uploaded.
        MlflowException: some files failed. The others were uploaded, unless the password was
            rejected.
    """
    keys = {name: join_key(folder.path, name) for name in files}
    _warn_of_lost_parts(files, folder)
    there = bucket.prepare_uploads(keys.values())
    overwritten = [name for name in files if is_mlmodel(name) and keys[name] in there]
    workers = bucket.settings.max_workers
    void = void_mlmodel()

    def upload(name: str) -> None:
        with noting_write(bucket):
            bucket.upload_file(keys[name], files[name])

    def invalidate(name: str) -> None:
        with noting_write(bucket):
            bucket.upload_bytes(keys[name], void)

    count = len(files) + len(overwritten)
    with _progress_bar("Uploading artifacts", count) as progress:
        failures: dict[str, Exception] = {}
        for models in reversed(mlmodels_inside_out(overwritten)):
            todo = [mlmodel for mlmodel in models if not in_any_model(mlmodel, failures)]
            failures |= _run_all(invalidate, todo, max_workers=workers, progress=progress)
        # upload no file of a model whose earlier MLmodel could not be replaced
        untouched = list(failures)
        others = [n for n in files if not is_mlmodel(n) and not in_any_model(n, untouched)]
        failures |= _run_all(upload, others, max_workers=workers, progress=progress)
        held_back: list[str] = []
        for models in mlmodels_inside_out(files):
            incomplete = [
                mlmodel
                for mlmodel in models
                if in_any_model(mlmodel, untouched)
                or any(belongs_to_model(name, mlmodel) for name in (*failures, *held_back))
            ]
            complete = [m for m in models if m not in incomplete]
            failures |= _run_all(upload, complete, max_workers=workers, progress=progress)
            held_back += incomplete
    notes = []
    if untouched:
        notes.append(
            "Nothing was uploaded to these models, because their earlier MLmodel could not be "
            f"replaced first: {enumerated(untouched)}"
        )
    if held_back := [mlmodel for mlmodel in held_back if not in_any_model(mlmodel, untouched)]:
        notes.append(f"Not uploaded, because other files failed: {enumerated(held_back)}")
    _raise_for(failures, "uploading", folder, "\n".join(notes))


def find_files(keys: Iterable[str], location: BucketFSUri, relative: str) -> dict[str, str]:
    """Find the keys of a file, or of all files in a folder, in a listing.

    If a path is both a file and a folder, the folder is taken.

    Args:
        keys: the keys that are listed at and below the path.
        location: the path within the bucket.
        relative: the same path relative to the repository's root; empty for the root.

    Returns:
        Keys by their path relative to the repository's root.

    Raises:
        MlflowException: nothing is listed; an empty root is not an error.
    """
    keys = list(keys)
    below = {
        join_key(relative, key[len(location.path) :].lstrip("/")): key
        for key in keys
        if key != location.path
    }
    if not below and location.path in keys:
        return {relative: location.path}
    if not below and relative:
        raise MlflowException(
            f"There is no artifact at '{printable(str(location))}'.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    names, shadowed = _split_shadowed(below)
    if shadowed:
        _logger.warning(
            "Not downloaded from %s, because folders have the same names: %s",
            printable(str(location)),
            enumerated(shadowed),
        )
    return {name: below[name] for name in names}


def download_files(
    bucket: Bucket,
    location: BucketFSUri,
    keys: Mapping[str, str],
    destination: str,
    mounted: MountedBucket | None = None,
) -> None:
    """Download files into a directory, with one GET per file.

    Args:
        bucket: the source bucket.
        location: the source location, for messages.
        keys: see :func:`find_files`.
        destination: existing directory.
        mounted: the same bucket on the mount; files that exist there are copied without a GET.

    Raises:
        InvalidKeyError: a key would lead out of the directory; nothing was downloaded.
        MlflowException: some files failed. The others were downloaded, unless the password was
            rejected.
    """
    targets = {name: Path(destination, *split_key(name)) for name in keys}
    for directory in {target.parent for target in targets.values()}:
        directory.mkdir(parents=True, exist_ok=True)

    def download(name: str) -> None:
        if mounted is None or not mounted.copy_if_present(keys[name], targets[name]):
            bucket.download_file(keys[name], targets[name])

    with _progress_bar("Downloading artifacts", len(keys)) as progress:
        failures = _run_all(
            download, keys, max_workers=bucket.settings.max_workers, progress=progress
        )
    _raise_for(failures, "downloading", location)


def delete_folder(bucket: Bucket, location: BucketFSUri) -> None:
    """Delete a file or folder; delete an ``MLmodel`` before the other files of its model.

    So no partly deleted model looks complete. If an ``MLmodel`` cannot be deleted, its model is
    left unchanged.

    Raises:
        BucketFSError: the bucket cannot be listed.
        MlflowException: some files failed. The others were deleted, unless the password was
            rejected.
    """
    delete_keys(bucket, location, bucket.keys(location.path))


def delete_keys(bucket: Bucket, location: BucketFSUri, keys: Sequence[str]) -> None:
    """Delete objects as :func:`delete_folder` does.

    Args:
        bucket: the bucket of the objects.
        location: the deleted location, for messages.
        keys: the keys of the objects.

    Raises:
        MlflowException: see :func:`delete_folder`.
    """

    def delete(key: str) -> None:
        with noting_write(bucket):
            bucket.delete(key)

    workers = bucket.settings.max_workers
    with _progress_bar("Deleting artifacts", len(keys)) as progress:
        models = [key for key in keys if is_mlmodel(key)]
        others = [key for key in keys if not is_mlmodel(key)]
        failures = _run_all(delete, models, max_workers=workers, progress=progress)
        others = [key for key in others if not in_any_model(key, failures)]
        failures |= _run_all(delete, others, max_workers=workers, progress=progress)
    _raise_for(failures, "deleting", location)


def _warn_of_lost_parts(files: Mapping[str, Path], folder: BucketFSUri) -> None:
    """Warn about archives and empty folders in models: BucketFS unpacks or omits them."""
    models = [name for name in files if is_mlmodel(name)]
    archives = [n for n in files if strip_archive_suffix(n) != n and in_any_model(n, models)]
    if archives:
        _logger.warning(
            "The model for %s contains archives, which BucketFS unpacks: UDFs will see folders "
            "without the suffix instead, and can read these files over HTTP only: %s",
            printable(str(folder)),
            enumerated(archives),
        )
    empty = {
        f"{mlmodel.removesuffix(MLMODEL)}{name}"
        for mlmodel in models
        for name in _empty_folders_below(files[mlmodel].parent)
    }
    if empty:
        _logger.warning(
            "The model for %s contains empty folders, which BucketFS cannot store. If the model "
            "needs them, put a file into each: %s",
            printable(str(folder)),
            enumerated(sorted(empty)),
        )


def _empty_folders_below(directory: Path) -> Iterator[str]:
    # files_below has already refused circular links
    for path, folders, files in os.walk(directory, followlinks=True):
        if not folders and not files:
            yield Path(path).relative_to(directory).as_posix()


def _raise_for(
    failures: Mapping[str, Exception], action: str, location: BucketFSUri, note: str = ""
) -> None:
    if failures:
        raise aggregated_error(action, str(location), failures, note) from next(
            iter(failures.values())
        )


def _split_shadowed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate the names of files that are also names of folders.

    BucketFS can hold ``d`` and ``d/x``; a local directory cannot.

    Returns:
        The names of files only, and the names that are also folders.
    """
    names = list(names)
    folders = {folder for name in names for folder in parent_folders(name)}
    return [n for n in names if n not in folders], [n for n in names if n in folders]


def files_below(directory: Path, *, bucket_root: str | None = None) -> dict[str, Path]:
    """Find all files below a directory, including hidden ones and those behind links.

    Args:
        directory: the directory.
        bucket_root: for a directory on the mount: the root directory of its bucket, with links
            resolved. Links must then stay below it, and special files are refused.

    Returns:
        Paths by their name relative to the directory, with ``/`` as separator, sorted by name. On
        the mount, a link has the path of its target.

    Raises:
        UnsafeEntryError: on the mount, a link leads out of the bucket or back to one of its
            parents, or a file is a special one, such as a named pipe.
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
    # os.walk would silently skip directories that are unreadable or behind links
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


def _progress_bar(text: str, total: int) -> ArtifactProgressBar:
    """Return MLflow's progress bar, which is hidden during interpreter shutdown.

    tqdm starts a thread for its first bar; up to Python 3.11, that would then block forever.
    """
    if sys.is_finalizing():
        return ArtifactProgressBar(text, total, step=1)
    bar: ArtifactProgressBar = ArtifactProgressBar.files(text, total)
    return bar


def _run_all(
    action: Callable[[str], object],
    names: Iterable[str],
    *,
    max_workers: int,
    progress: ArtifactProgressBar,
) -> dict[str, Exception]:
    """Call ``action`` for every name in parallel, and collect the failures.

    A failure does not stop the others. But if the password is rejected for all of the first
    names, no further one is started.

    The threads end with the call: a pool that the repository keeps would have no threads in a
    forked child, and calls would block there forever. They are daemon threads, so that a second
    Ctrl-C ends the process; at exit, it would wait for threads of ``concurrent.futures``. If no
    thread can be started, as during interpreter shutdown, the calling thread does the work.

    Args:
        action: called once per name, in any order and in several threads.
        names: the arguments of the calls.
        max_workers: maximum number of threads.
        progress: MLflow's progress bar, advanced by every success.

    Returns:
        The failures by name, in the order of ``names``; ``NotTriedError`` for names not started.
    """
    batch = _Batch(action, names)
    threads: list[threading.Thread] = []
    try:
        batch.start(threads, min(_FIRST_THREADS, max_workers))
        if not threads:
            batch.work()
        ended = 0
        while ended < len(threads):
            succeeded = batch.succeeded
            more = min(len(threads), max_workers - len(threads), len(batch.todo))
            # not Thread.join: up to Python 3.12, Ctrl-C within it marks the thread as ended
            with suppress(Empty):
                batch.ended.get(timeout=_TICK_S if more else _PROGRESS_S)
                ended += 1
            batch.report(progress)
            if batch.succeeded - succeeded < len(threads):
                batch.start(threads, more)
        batch.report(progress)
        if batch.interrupt is not None:
            raise batch.interrupt  # noqa: TRY301 -- it ends the other threads as Ctrl-C does
    except BaseException:
        # after Ctrl-C, no name is started and no request is retried
        batch.stop.set()
        _wait_for(threads)
        raise
    return batch.failures


class _Batch:
    """State that the threads of one call share, without locks: each operation is atomic.

    The calling thread polls it instead of being woken for each name: with a response every
    millisecond, waking it costs as much as the request.

    Attributes:
        todo: names that no thread has taken yet.
        failures: the error of each name that has not succeeded.
        stop: set to end the threads early.
        interrupt: the exception that ended a thread, if it is not an ``Exception``.
        ended: receives an entry from each thread that ends.
        succeeded: number of names that were reported to the progress bar.
    """

    def __init__(self, action: Callable[[str], object], names: Iterable[str]) -> None:
        self.todo = deque(names)
        self.failures: dict[str, Exception] = {name: NotTriedError() for name in self.todo}
        self.stop = threading.Event()
        self.interrupt: BaseException | None = None
        self.ended: SimpleQueue[None] = SimpleQueue()
        self.succeeded = 0
        self._action = action
        self._done: deque[str] = deque()
        self._refused: deque[str] = deque()
        self._some_succeeded = False

    def start(self, threads: list[threading.Thread], count: int) -> None:
        """Start further threads, as many as the system allows."""
        for number in range(len(threads), len(threads) + min(count, len(self.todo))):
            if sys.is_finalizing():  # up to Python 3.11, start() would wait forever
                return
            thread = threading.Thread(target=self.work, name=f"BucketFS_{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # limit of the system, or an exit handler on Python >= 3.12
                return
            threads.append(thread)

    def work(self) -> None:
        """Process names until none is left."""
        try:
            with suppress(IndexError), abandoned_by(self.stop):
                while not self.stop.is_set():
                    name = self.todo.popleft()
                    try:
                        self._action(name)
                    except Exception as error:  # noqa: BLE001 -- returned to the caller
                        self.failures[name] = error
                        self._stop_if_all_are_refused(name, error)
                    except BaseException as error:  # noqa: BLE001 -- raised by the caller
                        self.interrupt = error
                        self.stop.set()
                    else:
                        self._some_succeeded = True
                        self.failures.pop(name, None)  # a listing may have named it twice
                        self._done.append(name)
        finally:
            self.ended.put(None)

    def _stop_if_all_are_refused(self, name: str, error: Exception) -> None:
        if isinstance(error, _REFUSALS):
            self._refused.append(name)
            if len(self._refused) >= _ENOUGH_REFUSALS and not self._some_succeeded:
                self.todo.clear()

    def report(self, progress: ArtifactProgressBar) -> None:
        """Advance the progress bar by the successes since the last call."""
        while self._done:
            self._done.popleft()
            self.succeeded += 1
            progress.update()


def _wait_for(threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + _GRACE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if running := sum(thread.is_alive() for thread in threads):
        _logger.warning(
            "Interrupted: waiting for %d transfer(s) that BucketFS has not answered yet. Press "
            "Ctrl-C again to stop waiting; then it is not known whether their files are stored.",
            running,
        )
    for thread in threads:
        thread.join()
