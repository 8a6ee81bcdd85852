"""Run the blocks of one page, and compare their output with that on the page."""

from __future__ import annotations

import ast
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doc_examples.blocks import blocks_of
from doc_examples.environment import page_environment
from doc_examples.python_process import PythonProcess
from doc_examples.shell import TIMEOUT_S, Background, ExampleFailedError, Shell
from doc_examples.substitutes import Substitutes

if TYPE_CHECKING:
    from doc_examples.blocks import Block
    from doc_examples.substitutes import Services

_LATE_OUTPUT_S = 10.0
_WILDCARD = re.compile(r"(?P<number>\d+(?:\.\d+)?)|(?P<any> ?… ?)|(?P<space>[ \t]+)|.", re.DOTALL)


class Page:
    """A page whose blocks run in their order; the caller must close it.

    Args:
        path: the page.
        name: the page's name in messages.
        services: the servers that the page does not start.
        directory: an empty directory for this page only.

    Attributes:
        failed_line: the line of the first block that failed.
    """

    def __init__(self, path: Path, name: str, services: Services, directory: Path) -> None:
        self.failed_line: int | None = None
        home = directory / "page"
        home.mkdir()
        self._directory = directory
        staying = [b.source for b in blocks_of(path.read_text(encoding="utf-8")) if b.stays]
        self._substitutes = Substitutes(services, staying)
        self._shell = Shell(home, page_environment(directory), name)
        self._python = PythonProcess(path, directory / "python.log")
        self._background: list[Background] = []

    def run(self, block: Block) -> None:
        """Run a block according to its language and marks.

        Raises:
            ExampleFailedError: the block failed, or its output or status is not as documented.
        """
        source = self._substitutes.actual(block.source)
        if block.file:
            (Path(self._shell.directory) / block.file).write_text(source, encoding="utf-8")
            return
        if block.language == "python":
            printed = self._run_python(block, source)
        else:
            script = commands_of(source) if block.language == "console" else source
            printed = self._run_script(block, script)
        if block.prints:
            self._compare(block, printed)

    def _run_python(self, block: Block, source: str) -> str:
        line = block.line + 1
        if not _defines_tests(source):
            env = self._shell.env
            return self._python.run(source, line=line, env=env, timeout_s=TIMEOUT_S)
        test = Path(self._shell.directory) / f"test_line_{line}.py"
        test.write_text("\n" * (line - 1) + source, encoding="utf-8")
        pytest = shlex.join(["pytest", "-q", "-p", "no:cacheprovider", test.name])
        return self._shell.run(pytest, line=line)

    def _run_script(self, block: Block, script: str) -> str:
        line = block.line + 1
        if not block.stays:
            return self._shell.run(script, line=line, status=block.status)
        ports = self._substitutes.ports_of(block.source)
        if not ports:
            raise ExampleFailedError("the port of this command is not known: give it --port")
        # a reader has pressed Ctrl-C in that terminal before
        for earlier in [each for each in self._background if each.ports & set(ports)]:
            self._background.remove(earlier)
            earlier.end()
        started = Background(
            self._shell.arguments(script, line),
            ports=ports,
            # replace the defaults of port and number of processes
            env={**self._shell.env, "MLFLOW_PORT": str(ports[0]), "MLFLOW_WORKERS": "1"},
            log=self._directory / f"line_{line}.log",
        )
        self._background.append(started)
        started.wait()
        return started.printed

    def _compare(self, block: Block, printed: str) -> None:
        shown = output_of(block.source)
        deadline = time.monotonic() + (_LATE_OUTPUT_S if block.stays else 0)
        while missing := missing_line(shown, self._substitutes.documented(printed)):
            if time.monotonic() > deadline:
                reason = f"the page shows a line that was not printed: {missing}"
                raise ExampleFailedError(reason, printed)
            time.sleep(0.2)
            printed = self._background[-1].printed

    def close(self) -> None:
        """End all processes that the page has started."""
        self._python.close()
        while self._background:
            self._background.pop().end()


def _defines_tests(source: str) -> bool:
    """Return whether a block defines a function ``test_…``, so that pytest runs it."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # running the block reports it
        return False
    return any(isinstance(each, ast.FunctionDef) and each.name.startswith("test_") for each in body)


def commands_of(console: str) -> str:
    """Return the script of a console block: its ``$`` lines, each with its line number."""
    script = []
    continued = False
    for line in console.splitlines():
        is_command = continued or line.startswith("$ ")
        script.append(line.removeprefix("$ ") if is_command else "")
        continued = is_command and line.endswith("\\")
    return "\n".join(script)


def output_of(console: str) -> list[str]:
    """Return the lines of a console block that are output."""
    commands = commands_of(console).split("\n")
    lines = zip(console.splitlines(), commands, strict=True)
    return [line for line, command in lines if line.strip() and not command]


def missing_line(shown: list[str], printed: str) -> str | None:
    """Return the first shown line that was not printed in this order; None if all were printed.

    Further lines may have been printed. Numbers and the width of blanks may differ; ``…`` matches
    any text, and as a separate line any lines.
    """
    lines = iter(printed.splitlines())
    for each in shown:
        pattern = re.compile(_pattern(each.strip()))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return each
    return None


def _pattern(shown: str) -> str:
    return "".join(
        r"\d+(?:\.\d+)?"
        if part["number"]
        else ".*"
        if part["any"]
        else r"\s+"
        if part["space"]
        else re.escape(part[0])
        for part in _WILDCARD.finditer(shown)
    )
