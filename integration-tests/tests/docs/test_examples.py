"""The pages' examples are executed, and a wrong example fails."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest
from doc_examples.blocks import RUN_ELSEWHERE, blocks_of, markdown_files

pytest_plugins = ["pytester"]

_ROOT = Path(__file__).parents[3]
# pages whose blocks readers do not run: past changes, and the README of a separate project
_NOT_FOR_READERS = {"CHANGELOG.md", "integration-tests/reuse-example/README.md"}


def _pages() -> list[Path]:
    files = {page: str(page.relative_to(_ROOT)) for page in markdown_files(_ROOT)}
    return [page for page, name in files.items() if not name.endswith(tuple(_NOT_FOR_READERS))]


def test_every_page_with_an_example_is_collected(request):
    """Each page with a block is below docs/ or named in `testpaths`."""
    named = request.config.getini("testpaths")
    collected = {path.resolve() for name in named for path in _ROOT.glob(name)}
    with_blocks = {page for page in _pages() if blocks_of(page.read_text(encoding="utf-8"))}
    below_docs = {page for page in with_blocks if page.is_relative_to(_ROOT / "docs")}
    assert with_blocks - below_docs - collected == set()
    assert _ROOT / "docs" in collected


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_block_is_executed_or_marked(page):
    """Each block is executed, never run, or marked; the tests that reasons name exist."""
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    assert [(block.line, block.problem) for block in blocks if block.problem] == []
    reasons = [block.skip for block in blocks if block.skip]
    named = [name for reason in reasons for name in re.findall(r"[\w.-]+/[\w./-]*\w", reason)]
    assert [name for name in named if not (_ROOT / name).exists()] == []
    elsewhere = [reason for reason in reasons if reason.startswith(RUN_ELSEWHERE)]
    assert [reason for reason in elsewhere if "/" not in reason] == []


def test_the_examples_of_a_package_are_on_the_pages():
    """Each example file is on a page, and the block that names it has its text."""
    shown = {}
    for page in _pages():
        for block in blocks_of(page.read_text(encoding="utf-8")):
            file = _ROOT / (block.skip or "").removeprefix(RUN_ELSEWHERE)
            if file.parent.name == "examples":
                shown[file] = block.source
    examples = _ROOT.glob("packages/*/tests/examples/*.py")
    assert shown == {file: file.read_text(encoding="utf-8") for file in examples}


@pytest.fixture
def run_pages(pytester, monkeypatch):
    """Return a function that runs the examples of given pages in a separate pytest."""
    # in a separate process: pytester would import the package again, with other classes
    monkeypatch.setenv("PYTHONPATH", str(_ROOT / "integration-tests"))

    def run(**pages):
        pytester.makeconftest(
            "from pathlib import Path\n"
            "from doc_examples.collection import collect_page\n"
            "def pytest_collect_file(file_path, parent):\n"
            "    if file_path.suffix == '.md':\n"
            "        return collect_page(Path(__file__).parent, file_path, parent)\n"
        )
        for name, text in pages.items():
            Path(pytester.path, f"{name}.md").write_text(textwrap.dedent(text), encoding="utf-8")
        return pytester.runpytest_subprocess("-rs", "--junit-xml=results.xml")

    return run


def test_correct_blocks_pass(run_pages):
    """Variables, directory and names pass to later blocks; output and status are compared.

    A block inside another block is not run, and its marks are ignored.
    """
    result = run_pages(
        page="""
    ```bash
    mkdir here && cd here && export COLOUR=blue
    ```

    ```python
    import os

    colour = os.environ["COLOUR"]
    ```

    ```python
    print(colour, os.path.basename(os.getcwd()))
    ```

    <!-- prints this -->
    ```console
    $ echo "$COLOUR" is \\
      the colour, number 15
    $ pwd
    blue is the colour, number 23
    /…/here
    ```

    <!-- ends with 3 -->
    ```bash
    exit 3
    ```

    <!-- file: greet.py -->
    ```python
    print("hello")
    ```

    ```bash
    python greet.py > said.txt
    grep -q hello said.txt
    ```

    ```python
    def test_numbers(tmp_path):
        assert 2 + 2 == 4
    ```

    ```text
    anything at all
    ```

    ````text
    <!-- ends with 2 -->
    ```bash
    exit 1
    ```
    ````
    """
    )
    result.assert_outcomes(passed=8)


# kind of mistake -> a block with it, in line 5 of its page, and part of pytest's message
_WRONG = {
    "bash": ("```bash\ntrue\nls nothing-here", "line 7: status 2: ls nothing-here"),
    "console": ("```console\n$ false\nsome output", "line 6: status 1: false"),
    "unknown command": ("```bash\ntrue\nno-such-command", "line 7: no-such-command"),
    "variable": ('```bash\necho "$NOT_SET"', "line 6: NOT_SET"),
    "exception": ("```python\nx = 1\nx / 0", '.md", line 7, in <module>'),
    "syntax": ("```python\nx = = 1", '.md", line 6'),
    "exit": ("```python\nraise SystemExit(0)", "SystemExit: 0"),
    "end of Python": ("```python\nimport os\nos._exit(0)", "the Python process ended"),
    "test": ("```python\ndef test_it():\n    assert 1 == 2", "assert 1 == 2"),
    "package": ("```bash\npip install no-such-package", "no-such-package is not installed"),
    "extra": ("```bash\npip install mlflow-bucketfs-plugin[bogus]", "has no extra bogus"),
    "version": ("```bash\npip install 'mlflow<2'", "not <2"),
    "language": ("```bogus\nanything", "the language 'bogus'"),
    "no language": ("```\nanything", "the language ''"),
    "directive with code": ("```{code-block} python\n1 / 0", "the language '{code-block}'"),
    "sql": ("```sql\nSELECT 1", "a sql block needs the mark"),
    "inside a directive": ("````{note}\n```bash\nfalse\n```\n````", "line 7: status 1: false"),
    "output": ("<!-- prints this -->\n```console\n$ echo red\nblue", "not printed: blue"),
    "status": ("<!-- ends with 2 -->\n```bash\nexit 1", "ended with status 1, not 2"),
    "reason": ("<!-- skip: next -->\n```bash\ntrue", "the mark must be"),
    "no status": ("<!-- ends with failure -->\n```bash\ntrue", "must be <!-- ends with 1 -->"),
    "lost mark": ("<!-- prints this -->\n\nText.", "no block follows the mark"),
    "server ends": ("<!-- runs until stopped -->\n```bash\necho --port 5000", "ended with status"),
    "server's port": ("<!-- runs until stopped -->\n```bash\nsleep 5", "give it --port"),
}


def test_wrong_blocks_fail(run_pages, pytester):
    """The message for a wrong block contains page, line and problem."""
    names = {kind: re.sub(r"\W", "_", kind) for kind in _WRONG}
    pages = {names[kind]: f"# Title\n\nText.\n\n{block}\n" for kind, (block, _) in _WRONG.items()}
    closed = {name: text + "```\n" * (text.count("```") % 2) for name, text in pages.items()}
    run_pages(**closed).assert_outcomes(failed=len(_WRONG))
    results = ET.parse(pytester.path / "results.xml")  # noqa: S314 -- pytest wrote it
    texts = [failure.text for failure in results.iter("failure")]
    found = {re.search(r"/(\w+)\.md, line [567],", text)[1]: text for text in texts}
    messages = {kind: found[names[kind]] for kind in _WRONG}
    assert {kind: text for kind, text in messages.items() if _WRONG[kind][1] not in text} == {}


def test_skipped_blocks_have_reasons(run_pages):
    """A skipped block shows its reason; a block below a failed one shows the failed line."""
    result = run_pages(
        marked='<!-- skip: next "needs an Exasol" -->\n```sql\nSELECT 1\n```\n',
        elsewhere='<!-- skip: next "run by a/test.py" -->\n```sql\nSELECT 1\n```\n',
        broken="```bash\nfalse\n```\n\n```bash\ntouch never\n```\n",
    )
    result.assert_outcomes(failed=1, skipped=2)
    result.stdout.fnmatch_lines_random(
        ["SKIPPED*: needs an Exasol", "SKIPPED*: the block in line 1 of this page failed"]
    )


def test_a_server_of_the_page_ends_with_it(run_pages, tmp_path):
    """A server of a page listens on a free port, and its processes end with the page."""
    pid = tmp_path / "pid"
    page = f"""
    <!-- runs until stopped -->
    ```bash
    sleep 600 & echo $! > {pid}
    python -m http.server --bind 127.0.0.1 $(echo --port 5000 | cut -d' ' -f2)
    ```

    ```bash
    curl --silent --fail http://localhost:5000/ > listing.html
    ```
    """
    run_pages(page=page).assert_outcomes(passed=2)
    assert not psutil.pid_exists(int(pid.read_text()))
