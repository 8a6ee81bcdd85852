"""Many transfers at once, with a progress bar and all failures collected."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from mlflow.utils.file_utils import ArtifactProgressBar
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    HostNotAllowedError,
    MissingCredentialsError,
)
from mlflow_bucketfs_core.http.retry import abandoned_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_logger = logging.getLogger(__name__)

# What speaks against the password, which belongs to the whole bucket.
_REFUSALS = (
    AccessDeniedError,
    AuthenticationError,
    HostNotAllowedError,
    MissingCredentialsError,
)
# So many of them, and nothing that was not refused, mean all files. Fewer may be about their own
# paths: older versions of BucketFS answer 403 for a path that was deleted a moment ago, and a proxy
# may refuse a name.
_ENOUGH_REFUSALS = 4
# What ends so soon after Ctrl-C needs no word.
_GRACE_S = 0.5


class NotTriedError(Exception):
    """Not even begun, because what came before it was refused for a reason that all share."""


def progress_bar(text: str, total: int) -> ArtifactProgressBar:
    """Return MLflow's progress bar, which does not show while the interpreter ends.

    tqdm starts a thread for its first bar, and up to Python 3.11 waits forever for it then.
    """
    if sys.is_finalizing():
        return ArtifactProgressBar(text, total, step=1)
    bar: ArtifactProgressBar = ArtifactProgressBar.files(text, total)
    return bar


def run_all(
    action: Callable[[str], object],
    names: Iterable[str],
    *,
    max_workers: int,
    progress: ArtifactProgressBar,
) -> dict[str, Exception]:
    """Call ``action`` for every name; a failure of one does not stop the others.

    Unless all that were tried first are refused: then nothing more is begun.

    The threads live as long as the call: a pool kept on the repository would be dead in a forked
    child, and its threads would wait there for ever. They are daemons, so that a second Ctrl-C
    ends a process that waits for them; those of ``concurrent.futures`` are waited for at its exit.
    Where no thread can be started, as while the interpreter ends, the calling one does all.

    Args:
        action: called once per name, in any order and in several threads.
        names: what to call it with.
        max_workers: greatest number of threads.
        progress: MLflow's progress bar, advanced by every success.

    Returns:
        The failures by name, in the order of ``names``; ``NotTriedError`` for what was not begun.
    """
    batch = _Batch(action, names)
    failures: dict[str, Exception] = {name: NotTriedError() for name in batch.todo}
    threads: list[threading.Thread] = []
    try:
        for number in range(min(max_workers, len(failures))):
            if sys.is_finalizing():  # up to Python 3.11, start() would wait forever
                break
            thread = threading.Thread(target=batch.work, name=f"BucketFS_{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more, or in an exit handler, Python >= 3.12
                break
            threads.append(thread)
        if not threads:
            batch.work()
        for name, error in batch.results(len(threads) or 1):
            if error is None:
                failures.pop(name, None)  # a listing may have named it twice
                progress.update()
            elif isinstance(error, Exception):
                failures[name] = error
            else:
                raise error  # noqa: TRY301 -- it ends the other threads as Ctrl-C does
    except BaseException:
        # after Ctrl-C nothing new is begun, and nothing is tried again
        batch.stop.set()
        _wait_for(threads)
        raise
    for thread in threads:
        thread.join()
    return failures


class _Batch:
    """What the threads of one call share.

    Attributes:
        todo: names that no thread has taken yet.
        stop: set once nobody wants the rest.
    """

    def __init__(self, action: Callable[[str], object], names: Iterable[str]) -> None:
        self.todo = deque(names)
        self.stop = threading.Event()
        self._action = action
        # ``None`` is the last that a thread says
        self._done: SimpleQueue[tuple[str, BaseException | None] | None] = SimpleQueue()
        self._refused: deque[str] = deque()
        self._some_succeeded = False

    def work(self) -> None:
        """Take one name after the other, until there is none."""
        try:
            with suppress(IndexError), abandoned_by(self.stop):
                while not self.stop.is_set():
                    name = self.todo.popleft()
                    error = self._try(name)
                    if error is not None and not isinstance(error, Exception):
                        self.stop.set()  # Ctrl-C, if this is the calling thread
                    self._stop_if_all_are_refused(name, error)
                    self._done.put((name, error))
        finally:
            self._done.put(None)

    def _stop_if_all_are_refused(self, name: str, error: BaseException | None) -> None:
        if error is None:
            self._some_succeeded = True
        elif isinstance(error, _REFUSALS):
            self._refused.append(name)
            if len(self._refused) >= _ENOUGH_REFUSALS and not self._some_succeeded:
                self.todo.clear()

    def _try(self, name: str) -> BaseException | None:
        try:
            self._action(name)
        except BaseException as error:  # noqa: BLE001 -- for the thread that waits for it
            return error
        return None

    def results(self, threads: int) -> Iterator[tuple[str, BaseException | None]]:
        """Yield names and what went wrong with them, until so many threads have ended."""
        while threads:
            if (result := self._done.get()) is None:
                threads -= 1
            else:
                yield result


def _wait_for(threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + _GRACE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if running := sum(thread.is_alive() for thread in threads):
        _logger.warning(
            "Giving up: waiting for %d transfer(s) that BucketFS has not answered yet. "
            "Ctrl-C once more stops waiting; whether their files are stored is not known then.",
            running,
        )
    for thread in threads:
        thread.join()
