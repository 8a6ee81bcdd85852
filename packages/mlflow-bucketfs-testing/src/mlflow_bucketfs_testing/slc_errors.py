"""What can go wrong with a script-language container."""

from __future__ import annotations


class SlcError(RuntimeError):
    """A script-language container could not be built or run; base of the errors below."""


class SlcUnavailableError(SlcError):
    """Docker, exaslct or the exported container is not there; the message says how to get it."""


class SlcCommandError(SlcError):
    """A command in the container failed or took too long.

    Attributes:
        exit_code: Its exit status; None if it took too long.
        stdout: What it wrote to its standard output.
        stderr: What it wrote to its standard error.
    """

    def __init__(
        self, message: str, *, exit_code: int | None = None, stdout: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
