"""The errors of MLflow servers, containers and UDFs; secrets that are not shown."""

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
    """No MLflow server answers at the URL of a server that should be running already."""


class MlflowServerPortInUseError(MlflowServerError, OSError):
    """The port that was asked for belongs to another process."""


class MissingExtraError(MlflowServerError, ImportError):
    """The extra ``[mlflow]`` of this package is not installed."""


class SlcError(RuntimeError):
    """A script-language container could not be built or run; base of the errors below."""


class SlcUnavailableError(SlcError):
    """Docker, exaslct or the exported container is not there; the message says how to get it."""


class SlcCommandError(SlcError):
    """A command in the container failed or took too long.

    Attributes:
        exit_code: its exit status; None if it took too long.
        stdout: what it wrote to its standard output.
        stderr: what it wrote to its standard error.
    """

    def __init__(
        self, message: str, *, exit_code: int | None = None, stdout: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


class UdfError(RuntimeError):
    """A UDF failed, or emitted what its output columns cannot hold.

    Args:
        text: the text that a SQL user sees.
        hint: what the error says beside it.
        output: see the attribute.

    Attributes:
        text: the text that a SQL user sees: the client's codes, the traceback, the exception.
        codes: Exasol's codes in the text, in their order, such as ``F-UDF-CL-LIB-1127``.
        output: what script and client wrote to standard output and standard error.
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
        """The output without the traceback that the client writes and the text has as well."""
        _, _, traceback = self.text.partition("ExaUDFError: ")
        return self.output.removesuffix(f"{traceback}\n")


class UdfScriptError(ValueError):
    """A ``CREATE SCRIPT`` statement cannot be parsed.

    Attributes:
        line: where, from 1.
        column: where in the line, from 1.
    """

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class UdfValueError(ValueError):
    """A value does not fit the type of its column; nothing was started."""


class UdfClientError(RuntimeError):
    """The UDF client could not be started or did not do its work; base of the errors below."""


class UdfClientDiedError(UdfClientError):
    """The client ended before it reported the end of its work.

    Attributes:
        exit_code: its exit status; negative for a signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UdfTimeoutError(UdfClientError, TimeoutError):
    """The UDF took too long, or its client was silent for too long; it was killed."""


class UdfProtocolError(UdfClientError):
    """A message came that the protocol does not allow here."""


class UdfExtraMissingError(UdfClientError, ImportError):
    """The extra ``[udf]`` of this package is not installed."""


def is_about_udf(info: Any) -> bool:
    """Return whether an error is about a script, its rows or its client.

    As ``__tracebackhide__`` of a module: pytest's report of such an error ends in the test, not in
    our code.

    Args:
        info: pytest's ``ExceptionInfo``.
    """
    return isinstance(info.value, (UdfError, UdfScriptError, UdfValueError, UdfClientError))


class Secret(str):
    """A string whose ``repr`` hides it, and with it every report of pytest's; else like any other.

    pytest prints the arguments of a failed test, and with ``-l`` all local variables.

    Args:
        text: the secret itself.
        shown: what ``repr`` shows instead.
    """

    __slots__ = ("_shown",)
    _shown: str

    def __new__(cls, text: str, shown: str = "***") -> Self:  # noqa: D102 -- see the class
        secret = super().__new__(cls, text)
        secret._shown = shown
        return secret

    def __repr__(self) -> str:
        return repr(self._shown)


# SQLAlchemy's drivers take the password in the query too; odbc_connect holds a whole list. Compiled
# when it is first used: every start of pytest imports this module.
_HIDDEN_PARAMETER = (
    r"([?&;][^\s?&;=]*(?:pass|pwd|secret|token|api_?key|odbc_connect)[^\s?&;=]*=)[^\s&;'\"]+"
)


def masked(text: str) -> str:
    """Return the text with every password in a URI hidden.

    These are ``scheme://user:password@`` and parameters such as ``?password=``.
    """
    text = re.sub(r"(://[^\s:/@]*:)\S*@", r"\1***@", text)
    return re.sub(_HIDDEN_PARAMETER, r"\1***", text, flags=re.IGNORECASE)
