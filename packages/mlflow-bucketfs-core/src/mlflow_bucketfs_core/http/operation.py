"""What is being done to which place, as errors tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlflow_bucketfs_core.errors import BucketFSError
    from mlflow_bucketfs_core.uri import BucketFSUri

_Error = TypeVar("_Error", bound="BucketFSError")


@dataclass(frozen=True)
class Operation:
    """What is being done, for messages.

    Attributes:
        verb: what is done, as in "Cannot upload …": ``list``, ``download``, ``upload``, ``delete``.
        uri: what it is done to.
    """

    verb: str
    uri: BucketFSUri

    def error(self, kind: type[_Error], reason: str) -> _Error:
        """Make an error that says what failed, where and why."""
        error = kind(f"Cannot {self.verb} {self.uri}: {reason}")
        error.reason = reason
        return error
