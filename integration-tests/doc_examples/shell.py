"""The shell of one page: its directory and variables pass from block to block."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from doc_examples.failure import ExampleFailedError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 300.0

# All on one line, which the line numbers in bash's messages do not count.
_PRELUDE = (
    """trap 'env -0 > {state}' EXIT; """
    """trap 'echo "$0: line $LINENO: status $?: $BASH_COMMAND" >&2' ERR; """
)
_CONTINUED = re.compile(r"\\$")


class Shell:
    """Runs one script after the other as if they were typed into one shell.

    Exported variables and the working directory are kept; variables that are not exported, and
    functions, are not.

    Args:
        directory: where the first one starts.
        env: all variables of the first one.
        name: what the messages of bash begin with.
    """

    def __init__(self, directory: Path, env: dict[str, str], name: str) -> None:
        self.env = {**env, "PWD": str(directory)}
        self._name = name
        self._state = directory.with_name(directory.name + ".env")

    @property
    def directory(self) -> str:
        """Where the next script starts."""
        return self.env["PWD"]

    def arguments(self, source: str, line: int) -> list[str]:
        """Return the command that runs a script whose first line has this number on the page."""
        prelude = _PRELUDE.format(state=shlex.quote(str(self._state)))
        script = prelude + "\n" * (line - 1) + source
        options = ["--noprofile", "--norc", "-eu", "-o", "pipefail", "-E"]
        return ["bash", *options, "-c", script, self._name]

    def run(self, source: str, *, line: int, status: int = 0, timeout_s: float = TIMEOUT_S) -> str:
        """Run a script to its end.

        Args:
            source: the script.
            line: number on the page of its first line.
            status: what it has to end with.
            timeout_s: when it is killed.

        Returns:
            What it printed, errors included.

        Raises:
            ExampleFailedError: it ended with another status, or not in time.
        """
        process = subprocess.Popen(  # noqa: S603 -- what the page shows
            self.arguments(source, line),
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            printed = process.communicate()[0]
            raise ExampleFailedError(f"not done after {timeout_s:g} s", printed) from error
        finally:
            _kill(process)
        self._remember()
        if process.returncode != status:
            said = f"ended with status {process.returncode}, not {status}"
            raise ExampleFailedError(said, printed)
        return printed

    def _remember(self) -> None:
        with suppress(FileNotFoundError):  # a script that replaced its shell leaves none
            entries = os.fsdecode(self._state.read_bytes()).split("\0")
            self.env = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            self._state.unlink()


def _kill(process: subprocess.Popen[str]) -> None:
    """End what a script has left in the background."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def commands_of(console: str) -> str:
    """Return the script of a console block: its ``$`` lines, each where it was."""
    script = []
    continued = False
    for line in console.splitlines():
        is_command = continued or line.startswith("$ ")
        script.append(line.removeprefix("$ ") if is_command else "")
        continued = is_command and bool(_CONTINUED.search(line))
    return "\n".join(script)


def output_of(console: str) -> list[str]:
    """Return the lines of a console block that are no commands."""
    commands = commands_of(console).split("\n")
    lines = zip(console.splitlines(), commands, strict=True)
    return [line for line, command in lines if line.strip() and not command]
