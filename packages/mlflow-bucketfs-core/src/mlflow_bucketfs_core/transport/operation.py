"""What is being done to which place, as errors tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_bucketfs_core.uri import BucketFSUri


@dataclass(frozen=True)
class Operation:
    """What is being done, for messages.

    Attributes:
        verb: what is done, as in "Cannot upload …": ``list``, ``download``, ``upload``, ``delete``.
        uri: what it is done to.
    """

    verb: str
    uri: BucketFSUri

    def message(self, reason: str) -> str:
        """Say what failed, where and why."""
        return f"Cannot {self.verb} {self.uri}: {reason}"
