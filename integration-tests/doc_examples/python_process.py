"""The Python process of one page."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path

from doc_examples.shell import ExampleFailedError

_CHILD = Path(__file__).with_name("python_child.py")


class PythonProcess:
    """A Python process in which the blocks of a page run, one after the other.

    Args:
        page: the page, whose lines are in tracebacks.
        log: file for its output.
    """

    def __init__(self, page: Path, log: Path) -> None:
        self._page = page
        self._log = log
        self._log.touch()
        self._process: subprocess.Popen[str] | None = None
        self._responses = -1

    def run(self, source: str, *, line: int, env: dict[str, str], timeout_s: float) -> str:
        """Run a block; later blocks have its variables.

        Args:
            source: the block.
            line: number on the page of its first line.
            env: the variables and, as ``PWD``, the directory to run it with.
            timeout_s: seconds after which the process is killed.

        Returns:
            The output of the block.

        Raises:
            ExampleFailedError: the block raised an exception, or did not end in time.
        """
        process = self._process or self._start(env)
        begin = self._log.stat().st_size
        order = {"source": source, "line": line, "path": str(self._page), "env": env}
        if process.stdin is not None:  # always true, for mypy
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        is_done, _, _ = select.select([self._responses], [], [], timeout_s)
        response = os.read(self._responses, 64).decode() if is_done else ""
        printed = self._log.read_bytes()[begin:].decode(errors="replace")
        if response.strip() != "ok":
            reasons = {"failed\n": "raised an exception", "": "the Python process ended"}
            reason = reasons[response] if is_done else f"not done after {timeout_s:g} s"
            self.close()
            raise ExampleFailedError(reason, printed)
        return printed

    def _start(self, env: dict[str, str]) -> subprocess.Popen[str]:
        self._responses, theirs = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 -- our own program
                    [str(shutil.which("python", path=env["PATH"])), "-u", str(_CHILD), str(theirs)],
                    env=env,
                    cwd=env["PWD"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    text=True,
                    pass_fds=[theirs],
                )
        finally:
            os.close(theirs)
        return self._process

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            os.close(self._responses)
            self._process = None
