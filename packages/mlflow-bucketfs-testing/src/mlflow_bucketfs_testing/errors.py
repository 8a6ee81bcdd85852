"""What can go wrong with a server that the fixtures start or reach."""

from __future__ import annotations

import re


class MlflowServerError(RuntimeError):
    """An MLflow server could not be started or reached; base of the errors below."""


class MlflowServerDiedError(MlflowServerError):
    """The server ended before it answered.

    Attributes:
        exit_code: Exit status of ``mlflow server``; negative for a signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class MlflowServerTimeoutError(MlflowServerError, TimeoutError):
    """The server did not answer in time, although its process was running."""


class MlflowServerUnreachableError(MlflowServerError, ConnectionError):
    """No MLflow server answers at the URL of a server that should be running already."""


class MlflowServerPortInUseError(MlflowServerError, OSError):
    """The port that was asked for belongs to another process."""


class MissingExtraError(MlflowServerError, ImportError):
    """The extra ``[mlflow]`` of this package is not installed."""


def masked(text: str) -> str:
    """Return the text with every password in a URI (``scheme://user:password@``) hidden."""
    return re.sub(r"(://[^\s:/@]*:)\S*@", r"\1***@", text)
