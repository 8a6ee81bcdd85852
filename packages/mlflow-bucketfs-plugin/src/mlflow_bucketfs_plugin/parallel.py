"""Many transfers at once, with a progress bar and all failures collected."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.transport.retrying import abandoned_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow.utils.file_utils import ArtifactProgressBar


def run_all(
    action: Callable[[str], object],
    names: Iterable[str],
    *,
    max_workers: int,
    progress: ArtifactProgressBar,
) -> dict[str, Exception]:
    """Call ``action`` for every name; a failure of one does not stop the others.

    The threads live as long as the call: a pool kept on the repository would be dead in a forked
    child, and its threads would wait there for ever.

    Args:
        action: called once per name, in any order and in several threads.
        names: what to call it with.
        max_workers: greatest number of threads.
        progress: MLflow's progress bar, advanced by every success.

    Returns:
        The failures by name, in the order of ``names``.
    """
    failures: dict[str, Exception] = {}
    names = list(names)
    if not names:
        return failures
    stop = threading.Event()

    def act(name: str) -> None:
        with abandoned_by(stop):
            action(name)

    pool = ThreadPoolExecutor(min(max_workers, len(names)), thread_name_prefix="BucketFS")
    try:
        futures = {pool.submit(act, name): name for name in names}
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                progress.update()
            elif isinstance(error, Exception):
                failures[futures[future]] = error
            else:
                raise error
    finally:
        # after Ctrl-C nothing new is begun, and nothing is tried again
        stop.set()
        pool.shutdown(cancel_futures=True)
    return {name: failures[name] for name in names if name in failures}
