"""Map this project's errors to MLflow's, whose codes determine the HTTP status."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from http import HTTPStatus
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
from mlflow_bucketfs_core.errors import printable

from mlflow_bucketfs_plugin.host_policy import is_tracking_server_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_logger = logging.getLogger(__name__)
# Maximum number of names in a message; the others are counted.
_MOST_NAMES = 100
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
    # 503, which MLflow's HTTP client retries
    (errors.LockedError, TEMPORARILY_UNAVAILABLE),
    (errors.ServerUnavailableError, TEMPORARILY_UNAVAILABLE),
    (errors.IncompleteTransferError, TEMPORARILY_UNAVAILABLE),
)


def code_of(error: BaseException) -> int:
    """Return MLflow's error code for an error of this project or of MLflow."""
    if isinstance(error, MlflowException):
        return int(ErrorCode.Value(error.error_code))
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL_ERROR)


@contextmanager
def mlflow_errors() -> Iterator[list[str]]:
    """Convert every ``BucketFSError`` inside to an ``MlflowException`` with the matching code.

    Yields:
        An empty list for sentences to add to the message. They are not only logged, because the
        log does not reach the user of a UDF.
    """
    notes: list[str] = []
    try:
        yield notes
    except errors.BucketFSError as error:
        raised = MlflowException(" ".join([str(error), *notes]), error_code=code_of(error))
        _log_for_operator(raised)
        raise raised from error
    except MlflowException as error:
        _log_for_operator(error)
        if notes:
            text = "\n".join([error.message, *notes])
            raise MlflowException(text, error_code=code_of(error)) from error
        raise


def _log_for_operator(error: MlflowException) -> None:
    """Log an error of a tracking server that MLflow's clients retry without logging it."""
    status = error.get_http_status_code()
    is_retried = (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    )
    if is_retried and is_tracking_server_process():
        _logger.warning("Answering with status %d: %s", status, error)


def enumerated(names: Iterable[str]) -> str:
    """Return names for a message, escaped: the first 100, and the number of the others."""
    names = list(names)
    some = ", ".join(map(printable, names[:_MOST_NAMES]))
    more = len(names) - _MOST_NAMES
    return f"{some} and {more} more" if more > 0 else some


class NotTriedError(Exception):
    """A transfer that was not started, because it would be refused as earlier ones were."""


def aggregated_error(
    action: str, location: str, failures: Mapping[str, BaseException], note: str = ""
) -> MlflowException:
    """Combine all failures of one operation into one exception.

    Args:
        action: the operation, for example ``"uploading"``.
        location: the location of the artifacts, for the message.
        failures: the errors by name; ``NotTriedError`` for names not started.
        note: text to append; names in it must be escaped.

    Returns:
        An exception with the error code of the failures, or INTERNAL_ERROR if their codes differ.
    """
    tried = {n: error for n, error in failures.items() if not isinstance(error, NotTriedError)}
    codes = {code_of(error) for error in tried.values()}
    title = f"{len(tried)} failure(s) while {action} artifacts at {printable(location)}:"
    lines = [title, *_by_cause(tried)]
    if not_tried := len(failures) - len(tried):
        lines.append(f"Not tried, because it would have failed too: {not_tried} file(s)")
    if note:
        lines.append(note)
    return MlflowException(
        "\n".join(lines), error_code=codes.pop() if len(codes) == 1 else INTERNAL_ERROR
    )


def _by_cause(failures: Mapping[str, BaseException]) -> Iterator[str]:
    """Yield a line per cause, with some of the files that failed for it."""
    causes: dict[str, list[str]] = {}
    for name, error in failures.items():
        causes.setdefault(_cause_of(error), []).append(name)
    for cause, names in causes.items():
        if len(names) == 1:
            error = failures[names[0]]
            yield printable(f"- {names[0]}: {str(error) or type(error).__name__}")
        else:
            yield f"- {enumerated(names)}: {printable(cause)}"


def _cause_of(error: BaseException) -> str:
    """Return the reason of an error, without the name of the file."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error) or type(error).__name__
