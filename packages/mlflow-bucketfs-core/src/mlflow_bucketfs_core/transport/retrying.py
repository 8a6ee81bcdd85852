"""When to try again, and when to give up."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from urllib3.exceptions import ConnectTimeoutError, MaxRetryError
from urllib3.util import Retry

from mlflow_bucketfs_core.transport.failures import TransientFailure

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from mlflow_bucketfs_core.errors import TransferError
    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Beside the transfer's own time. Long enough for the 30 s that a path stays locked after its
# deletion, short enough for somebody who waits for an answer.
_BUDGET_S = 60.0
# Nobody listens, or nobody knows the host: more tries would only delay the message.
_CONNECT_RETRIES = 2
_CONNECT_BACKOFF_S = 1.0

_abandoned: ContextVar[threading.Event | None] = ContextVar("bucketfs_abandoned", default=None)


@contextmanager
def abandoned_by(event: threading.Event) -> Iterator[None]:
    """Let this thread's operations inside the block give up, instead of waiting, once it is set.

    So Ctrl-C, which reaches the main thread only, ends the waits of its workers.
    """
    token = _abandoned.set(event)
    try:
        yield
    finally:
        _abandoned.reset(token)


@dataclass
class RetryLoop:
    """One operation, tried until it succeeds, fails for good, or has used up its budget.

    urllib3's ``Retry`` counts the tries and computes exponential back-off with jitter. The loop
    is ours because a body that breaks off must be fetched again as well, which urllib3 cannot do.
    """

    settings: ConnectionSettings
    _waited_s: float = field(default=0.0, init=False)
    _tries: int = field(default=0, init=False)

    def run(self, attempt: Callable[[], _Result]) -> _Result:
        """Call ``attempt`` until it returns.

        Args:
            attempt: makes one complete try; raises ``TransientFailure`` if another may help. It
                must be safe to call again.

        Raises:
            TransferError: the last failure, once tries or budget are used up.
        """
        retry = Retry(
            total=self.settings.max_retries,
            connect=min(_CONNECT_RETRIES, self.settings.max_retries),
            backoff_factor=self.settings.backoff_factor,
            backoff_jitter=self.settings.backoff_jitter,
            backoff_max=_BUDGET_S,
        )
        while True:
            self._tries += 1
            try:
                return attempt()
            except TransientFailure as failure:
                try:
                    # the error only tells urllib3 which of its counters to use
                    retry = retry.increment(
                        error=None if failure.connected else ConnectTimeoutError()
                    )
                except MaxRetryError:
                    raise self._give_up(failure) from failure.__cause__
                self._wait(failure, retry.get_backoff_time())

    def _wait(self, failure: TransientFailure, backoff_s: float) -> None:
        self._waited_s += failure.stalled_s
        left_s = _BUDGET_S - self._waited_s
        if left_s <= 0:
            raise self._give_up(failure) from failure.__cause__
        if not failure.connected:
            backoff_s = min(backoff_s, _CONNECT_BACKOFF_S)
        delay_s = min(max(backoff_s, failure.retry_after_s), left_s)
        _logger.debug("Trying again in %.1f s: %s", delay_s, failure.error)
        abandoned = _abandoned.get()
        if abandoned is None:
            time.sleep(delay_s)
        elif abandoned.wait(delay_s):
            raise self._give_up(failure) from failure.__cause__
        self._waited_s += delay_s

    def _give_up(self, failure: TransientFailure) -> TransferError:
        if self._tries == 1:
            return failure.error
        return type(failure.error)(f"{failure.error} Gave up after {self._tries} tries.")
