"""Retries of an operation: the loop, its time budget, its warnings, and abandoning it."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from urllib3.exceptions import ConnectTimeoutError, MaxRetryError
from urllib3.util import Retry

from mlflow_bucketfs_core.errors import TransferError
from mlflow_bucketfs_core.http.failures import TransientFailure

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Seconds of waiting, in addition to the transfer. Longer than the 30 s that a path stays locked
# after its deletion, short enough for interactive use.
_BUDGET_S = 60.0
# Longer waits are logged as warnings.
_WARN_AFTER_S = 5.0
# For a refused connection, or a host name that does not resolve, unless the server answered a
# short time before: more attempts would only delay the message.
_CONNECT_RETRIES = 2
_CONNECT_BACKOFF_S = 1.0

_abandoned: ContextVar[threading.Event | None] = ContextVar("bucketfs_abandoned", default=None)


class LongWaits:
    """Rate-limited warnings about long waits, for each server and kind of failure.

    There is no lock, because a fork could leave it locked forever.

    Args:
        pause_s: seconds in which the same warning is not repeated.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._warned: dict[tuple[str, type[TransferError]], float] = {}

    def warn(self, authority: str, error: TransferError, left_s: float) -> None:
        """Log a warning, unless the same was logged recently.

        Args:
            authority: host and port of the server.
            error: the error that causes the wait.
            left_s: seconds that the operation may still wait.
        """
        key = authority, type(error)
        now = time.monotonic()
        warned = self._warned.setdefault(key, now)
        if warned is not now:
            # of several threads, only the one that removes the old time may warn again
            if now - warned < self._pause_s or self._warned.pop(key, None) is not warned:
                return
            self._warned[key] = now
        _logger.warning(
            "Waiting for %s, for up to %.0f s more per file: %s", authority, left_s, error
        )


_long_waits = LongWaits(pause_s=30.0)


@contextmanager
def abandoned_by(event: threading.Event) -> Iterator[None]:
    """Abandon this thread's operations inside the block once the event is set.

    An abandoned operation is not retried, and stops before the next block of a file that it sends
    or receives. It still waits for the response to a request in progress. Ctrl-C reaches only the
    main thread, which stops its worker threads this way.
    """
    token = _abandoned.set(event)
    try:
        yield
    finally:
        _abandoned.reset(token)


def check_abandoned() -> None:
    """Raise if the operation of this thread was abandoned; see :func:`abandoned_by`.

    Raises:
        TransferError: it was abandoned. The message is not meant to be shown.
    """
    abandoned = _abandoned.get()
    if abandoned is not None and abandoned.is_set():
        raise TransferError("The transfer was abandoned.")


@dataclass
class RetryLoop:
    """Retries of one operation, until it succeeds, fails permanently, or the budget is used up.

    urllib3's ``Retry`` counts the attempts and computes exponential back-off with jitter. The loop
    is ours because urllib3 does not retry after a truncated body.

    Attributes:
        settings: number of retries, and back-off.
        authority: host and port, for the warning about long waits.
    """

    settings: ConnectionSettings
    authority: str
    _waited_s: float = field(default=0.0, init=False)
    _attempts: int = field(default=0, init=False)

    def run(self, attempt: Callable[[], _Result], *, repeatable: bool = True) -> _Result:
        """Call ``attempt`` until it succeeds, and return its result.

        Args:
            attempt: makes one complete attempt; raises ``TransientFailure`` if a retry may help.
            repeatable: whether ``attempt`` may be called again.

        Raises:
            TransferError: the last failure, once attempts or budget are used up.
        """
        retry = Retry(
            total=self.settings.max_retries,
            connect=min(_CONNECT_RETRIES, self.settings.max_retries),
            backoff_factor=self.settings.backoff_factor,
            backoff_jitter=self.settings.backoff_jitter,
            backoff_max=_BUDGET_S,
        )
        while True:
            self._attempts += 1
            try:
                return attempt()
            except TransientFailure as failure:
                if not repeatable:
                    raise failure.error from failure.__cause__
                try:
                    # the error only selects one of urllib3's counters
                    retry = retry.increment(
                        error=None if failure.connected else ConnectTimeoutError()
                    )
                except MaxRetryError:
                    raise self._final_error(failure) from failure.__cause__
                self._wait(failure, retry.get_backoff_time())

    def _wait(self, failure: TransientFailure, backoff_s: float) -> None:
        self._waited_s += failure.stalled_s
        left_s = _BUDGET_S - self._waited_s
        if left_s <= 0:
            raise self._final_error(failure) from failure.__cause__
        if not failure.connected:
            backoff_s = min(backoff_s, _CONNECT_BACKOFF_S)
        delay_s = min(max(backoff_s, failure.retry_after_s), left_s)
        _logger.debug("Retrying in %.1f s: %s", delay_s, failure.error)
        if self._waited_s + delay_s > _WARN_AFTER_S:
            _long_waits.warn(self.authority, failure.error, left_s)
        abandoned = _abandoned.get()
        if abandoned is None:
            time.sleep(delay_s)
        elif abandoned.wait(delay_s):
            raise self._final_error(failure) from failure.__cause__
        self._waited_s += delay_s

    def _final_error(self, failure: TransientFailure) -> TransferError:
        if self._attempts == 1:
            return failure.error
        error = type(failure.error)(f"{failure.error} Gave up after {self._attempts} attempts.")
        error.reason = failure.error.reason
        return error
