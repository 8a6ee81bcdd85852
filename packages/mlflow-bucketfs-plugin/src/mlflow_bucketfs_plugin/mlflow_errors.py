"""From this project's errors to MLflow's, whose codes decide the HTTP status a client sees."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
    ErrorCode,
)
from mlflow_bucketfs_core import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CODES: tuple[tuple[type[errors.BucketFSError], int], ...] = (
    (errors.InvalidUriError, INVALID_PARAMETER_VALUE),
    (errors.InvalidKeyError, INVALID_PARAMETER_VALUE),
    (errors.ConfigurationError, INVALID_PARAMETER_VALUE),
    (errors.HostNotAllowedError, INVALID_PARAMETER_VALUE),
    (errors.MissingCredentialsError, UNAUTHENTICATED),
    (errors.AuthenticationError, UNAUTHENTICATED),
    (errors.AccessDeniedError, PERMISSION_DENIED),
    (errors.ObjectNotFoundError, RESOURCE_DOES_NOT_EXIST),
    (errors.BucketNotFoundError, RESOURCE_DOES_NOT_EXIST),
    (errors.PathBlockedError, RESOURCE_CONFLICT),
    (errors.RateLimitedError, REQUEST_LIMIT_EXCEEDED),
    (errors.TransferTimeoutError, DEADLINE_EXCEEDED),
    # 503, which MLflow's HTTP client tries again
    (errors.LockedError, TEMPORARILY_UNAVAILABLE),
    (errors.ServerUnavailableError, TEMPORARILY_UNAVAILABLE),
    (errors.IncompleteTransferError, TEMPORARILY_UNAVAILABLE),
)


def _code_of(error: BaseException) -> int:
    if isinstance(error, MlflowException):
        return int(ErrorCode.Value(error.error_code))
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL_ERROR)


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Raise an ``MlflowException`` with the fitting code for every ``BucketFSError`` inside."""
    try:
        yield
    except errors.BucketFSError as error:
        raise MlflowException(str(error), error_code=_code_of(error)) from error


def aggregated(
    action: str, place: str, failures: Mapping[str, BaseException], note: str = ""
) -> MlflowException:
    """Put all failures of one operation into one exception.

    Args:
        action: what was done, for example ``"uploading"``.
        place: where, for the message.
        failures: what failed and why.
        note: what else should be known.

    Returns:
        An exception with the error code that all failures share, else INTERNAL_ERROR.
    """
    codes = {_code_of(error) for error in failures.values()}
    details = "\n".join(
        f"- {name}: {str(error) or type(error).__name__}" for name, error in failures.items()
    )
    return MlflowException(
        f"{len(failures)} failure(s) while {action} artifacts at {place}:\n{details}"
        + (f"\n{note}" if note else ""),
        error_code=codes.pop() if len(codes) == 1 else INTERNAL_ERROR,
    )
