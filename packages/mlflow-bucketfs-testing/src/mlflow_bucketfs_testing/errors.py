"""The errors of MLflow servers, containers and UDFs; strings whose ``repr`` is masked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class MlflowServerError(RuntimeError):
    """An MLflow server could not be started or reached; base of the errors below."""


class MlflowServerDiedError(MlflowServerError):
    """The server ended before it answered.

    Attributes:
        exit_code: exit status of ``mlflow server``; negative for a signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class MlflowServerTimeoutError(MlflowServerError, TimeoutError):
    """The server did not answer in time, although its process was running."""


class MlflowServerUnreachableError(MlflowServerError, ConnectionError):
    """No MLflow server answers at the URL of an external server."""


class MlflowServerPortInUseError(MlflowServerError, OSError):
    """The requested port is in use by another process."""


class MissingExtraError(MlflowServerError, ImportError):
    """The extra ``[mlflow]`` of this package is not installed."""


class SlcError(RuntimeError):
    """A script-language container could not be built or run; base of the errors below."""


class SlcUnavailableError(SlcError):
    """Docker, exaslct or the exported container is missing; the message contains the remedy."""


class SlcCommandError(SlcError):
    """A command in the container failed or timed out.

    Attributes:
        exit_code: its exit status; None after a timeout.
        stdout: its standard output.
        stderr: its standard error.
    """

    def __init__(
        self, message: str, *, exit_code: int | None = None, stdout: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


class UdfError(RuntimeError):
    """A UDF failed, or emitted a value that does not fit its output column.

    Args:
        text: the text that a SQL user sees.
        hint: addition to the text in the message.
        output: see the attribute.

    Attributes:
        text: the text that a SQL user sees: the client's codes, the traceback, the exception.
        codes: Exasol's codes in the text, in their order, such as ``F-UDF-CL-LIB-1127``.
        output: output of script and client, on standard output and standard error.
    """

    def __init__(self, text: str, *, hint: str = "", output: str = "") -> None:
        super().__init__(text + hint)
        self.text = text
        self.codes = tuple(dict.fromkeys(re.findall(r"\b[EFW](?:-[A-Z]+)+-\d+(?=:)", text)))
        self.output = output

    @property
    def code(self) -> str | None:
        """The first of the codes, which begins the text; None if it has none."""
        return self.codes[0] if self.codes else None

    @property
    def printed(self) -> str:
        """The output without the client's traceback, which is also part of ``text``."""
        _, _, traceback = self.text.partition("ExaUDFError: ")
        return self.output.removesuffix(f"{traceback}\n")


class UdfScriptError(ValueError):
    """A ``CREATE SCRIPT`` statement cannot be parsed.

    Attributes:
        line: line of the error, from 1.
        column: column of the error in this line, from 1.
    """

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class UdfValueError(ValueError):
    """A value does not fit the type of its column; the UDF was not started."""


class UdfClientError(RuntimeError):
    """The UDF client could not be started or failed; base of the errors below."""


class UdfClientDiedError(UdfClientError):
    """The client ended before it reported that it had finished.

    Attributes:
        exit_code: its exit status; negative for a signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UdfTimeoutError(UdfClientError, TimeoutError):
    """The UDF took too long, or its client sent nothing for too long; the client was killed."""


class UdfProtocolError(UdfClientError):
    """The client sent a message that the protocol does not allow at this point."""


class UdfExtraMissingError(UdfClientError, ImportError):
    """The extra ``[udf]`` of this package is not installed."""


def is_about_udf(info: Any) -> bool:
    """Return whether an error is about a script, its rows or its client.

    As ``__tracebackhide__`` of a module, it ends pytest's traceback of such an error in the test
    instead of our code.

    Args:
        info: pytest's ``ExceptionInfo``.
    """
    return isinstance(info.value, (UdfError, UdfScriptError, UdfValueError, UdfClientError))


class Secret(str):
    """A string whose ``repr`` is masked, so that pytest's reports do not show it.

    pytest prints the arguments of a failed test, and with ``-l`` all local variables.

    Args:
        text: the secret itself.
        shown: text that ``repr`` shows instead.
    """

    __slots__ = ("_shown",)
    _shown: str

    def __new__(cls, text: str, shown: str = "***") -> Self:  # noqa: D102 -- see the class
        secret = super().__new__(cls, text)
        secret._shown = shown
        return secret

    def __repr__(self) -> str:
        return repr(self._shown)


# SQLAlchemy's drivers take the password in the query too; odbc_connect is a list of parameters.
# Not compiled here, because every start of pytest imports this module.
_HIDDEN_PARAMETER = (
    r"([?&;][^\s?&;=]*(?:pass|pwd|secret|token|api_?key|odbc_connect)[^\s?&;=]*=)[^\s&;'\"]+"
)


def masked(text: str) -> str:
    """Return the text with all passwords in URIs masked.

    Masked are ``scheme://user:password@`` and parameters such as ``?password=``.
    """
    text = re.sub(r"(://[^\s:/@]*:)\S*@", r"\1***@", text)
    return re.sub(_HIDDEN_PARAMETER, r"\1***", text, flags=re.IGNORECASE)
