"""How long to wait for BucketFS."""

from __future__ import annotations

import math
from dataclasses import dataclass

_GIB = 1 << 30
_DEFAULT_IDLE_S = 60.0
# A PUT returns only after all nodes have the bytes: about 1 s at least, about 10 s per GiB and
# extra node (measured for docker-db 2026.1.1 with 2 and 4 nodes, Polo3cat/syncfs). Twelve extra
# nodes must do.
_REPLICATION_S_PER_GIB = 120.0
# Whether the second per PUT passes in parallel is known nowhere; assume that it does not.
_S_PER_UPLOAD_IN_FLIGHT = 2.0
# What a stream of unknown length is taken for.
_UNKNOWN_LENGTH_BYTES = 4 * _GIB


@dataclass(frozen=True)
class Timeouts:
    """Waiting times of one session, all in seconds; ``None`` in a result means no limit.

    Args:
        transfer_timeout_s: what the user allows without progress; ``None`` for 60 s, infinity
            for no limit.
    """

    transfer_timeout_s: float | None = None

    # Three tries and the waits between them end within 15 s, so that a wrong port is told soon;
    # 4 s span two repetitions of a lost SYN.
    connect_s: float = 4.0

    @property
    def idle_s(self) -> float | None:
        """Seconds without a byte, in either direction."""
        idle_s = self.transfer_timeout_s or _DEFAULT_IDLE_S
        return None if math.isinf(idle_s) else idle_s

    def upload_answer_s(self, size: int | None, in_flight: int) -> float | None:
        """Seconds until a PUT must be answered after its body was sent.

        Args:
            size: bytes sent; ``None`` if not known beforehand.
            in_flight: PUTs under way in this process, this one included.
        """
        if self.idle_s is None:
            return None
        size = _UNKNOWN_LENGTH_BYTES if size is None else size
        return (
            self.idle_s
            + _REPLICATION_S_PER_GIB * size / _GIB
            + _S_PER_UPLOAD_IN_FLIGHT * (in_flight - 1)
        )
