"""Who waits for long is told for what, but not once per file."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_bucketfs_core.errors import TransferError

_logger = logging.getLogger(__name__)


class LongWaits:
    """Warns of long waits, once in a while for each server and kind of failure.

    Without a lock, which a fork could leave locked for ever.

    Args:
        tell_every_s: seconds in which the same is not told again.
    """

    def __init__(self, tell_every_s: float) -> None:
        self._tell_every_s = tell_every_s
        self._told: dict[tuple[str, type[TransferError]], float] = {}

    def tell(self, authority: str, error: TransferError, left_s: float) -> None:
        """Log a warning, unless the same was told recently.

        Args:
            authority: host and port of the server.
            error: what would be raised if nobody waited.
            left_s: for how long is waited at most.
        """
        key = authority, type(error)
        now = time.monotonic()
        told = self._told.setdefault(key, now)
        if told is not now:
            # of several threads, only the one that takes the old time away may tell again
            if now - told < self._tell_every_s or self._told.pop(key, None) is not told:
                return
            self._told[key] = now
        _logger.warning(
            "Waiting for %s, for up to %.0f s more per file: %s", authority, left_s, error
        )
