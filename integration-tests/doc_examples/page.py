"""One page while its blocks run."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doc_examples.background import Background
from doc_examples.blocks import blocks_of
from doc_examples.environment import page_environment
from doc_examples.failure import ExampleFailedError
from doc_examples.places import Places
from doc_examples.printed import missing_line
from doc_examples.python_process import PythonProcess, defines_tests
from doc_examples.shell import TIMEOUT_S, Shell, commands_of, output_of

if TYPE_CHECKING:
    from doc_examples.blocks import Block
    from doc_examples.places import Services

_LATE_OUTPUT_S = 10.0


class Page:
    """Runs the blocks of a page in their order; to be closed.

    Args:
        path: the page.
        name: what messages call it.
        services: the servers that it does not start.
        directory: an empty one, for the page alone.

    Attributes:
        failed_line: where the first block begins that failed.
    """

    def __init__(self, path: Path, name: str, services: Services, directory: Path) -> None:
        self.failed_line: int | None = None
        home = directory / "page"
        home.mkdir()
        self._directory = directory
        staying = [b.source for b in blocks_of(path.read_text(encoding="utf-8")) if b.marks.stays]
        self._places = Places(services, staying)
        self._shell = Shell(home, page_environment(directory), name)
        self._python = PythonProcess(path, directory / "python.log")
        (directory / "python.log").touch()
        self._background: list[Background] = []

    def run(self, block: Block) -> None:
        """Do with a block what its language and marks say.

        Raises:
            ExampleFailedError: it did not do what the page says.
        """
        source = self._places.actual(block.source)
        if block.marks.file:
            (Path(self._shell.directory) / block.marks.file).write_text(source, encoding="utf-8")
            return
        if block.language == "python":
            printed = self._run_python(block, source)
        else:
            script = commands_of(source) if block.language == "console" else source
            printed = self._run_script(block, script)
        if block.marks.prints:
            self._compare(block, printed)

    def _run_python(self, block: Block, source: str) -> str:
        line = block.line + 1
        if not defines_tests(source):
            env = self._shell.env
            return self._python.run(source, line=line, env=env, timeout_s=TIMEOUT_S)
        test = Path(self._shell.directory) / f"test_line_{line}.py"
        test.write_text("\n" * (line - 1) + source, encoding="utf-8")
        pytest = shlex.join(["pytest", "-q", "-p", "no:cacheprovider", test.name])
        return self._shell.run(pytest, line=line)

    def _run_script(self, block: Block, script: str) -> str:
        line = block.line + 1
        if not block.marks.stays:
            return self._shell.run(script, line=line, status=block.marks.status)
        ports = self._places.ports_of(block.source)
        if not ports:
            raise ExampleFailedError("nobody knows which port it opens: give it --port")
        # whoever types this has pressed Ctrl-C in that terminal before
        for earlier in [each for each in self._background if each.ports & set(ports)]:
            self._background.remove(earlier)
            earlier.end()
        started = Background(
            self._shell.arguments(script, line),
            ports=ports,
            # what the page leaves to defaults: where it listens, and with how many processes
            env={**self._shell.env, "MLFLOW_PORT": str(ports[0]), "MLFLOW_WORKERS": "1"},
            log=self._directory / f"line_{line}.log",
        )
        self._background.append(started)
        started.wait()
        return started.printed

    def _compare(self, block: Block, printed: str) -> None:
        shown = output_of(block.source)
        deadline = time.monotonic() + (_LATE_OUTPUT_S if block.marks.stays else 0)
        while missing := missing_line(shown, self._places.documented(printed)):
            if time.monotonic() > deadline:
                raise ExampleFailedError(f"the page shows what was not printed: {missing}", printed)
            time.sleep(0.2)
            printed = self._background[-1].printed

    def close(self) -> None:
        """End everything that the page has started."""
        self._python.close()
        while self._background:
            self._background.pop().end()
