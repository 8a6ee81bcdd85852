"""The trees in ``docs/develop/layout.md`` are those on disk."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "develop" / "layout.md"
LINE = re.compile(r"(?P<indent> *)(?P<name>\S+)(?: {2,}(?P<purpose>\S.*))?")

# Python needs them; a line would only say so.
LEFT_OUT = {"__init__.py", "py.typed"}
# Every file and folder in these has a line, however deep; elsewhere a folder may stay closed.
OPEN_THROUGHOUT = (
    "packages/mlflow-bucketfs-core/src/mlflow_bucketfs_core/",
    "packages/mlflow-bucketfs-plugin/src/mlflow_bucketfs_plugin/",
    "packages/mlflow-bucketfs-testing/src/mlflow_bucketfs_testing/",
    "slc/",
)
OPEN = {"", "docs/", "integration-tests/", "integration-tests/tests/", "packages/"}


def trees() -> list[str]:
    """Return the page's trees."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def listed() -> dict[str, str]:
    """Return all paths in the page's trees, folders with a slash, each with what is said of it.

    A tree begins with its root; what is in a folder stands below it, indented by two blanks more.
    """
    found: dict[str, str] = {}
    for tree in trees():
        root, *lines = tree.splitlines()
        above = [root.removeprefix("./")]
        for line in lines:
            match = LINE.fullmatch(line)
            assert match, f"not a line of a tree: {line!r}"
            del above[len(match["indent"]) // 2 :]
            above.append(match["name"])
            path = "".join(above)
            assert path not in found, f"{path} stands there twice"
            found[path] = match["purpose"] or ""
    return found


@pytest.fixture(scope="module")
def on_disk() -> set[str]:
    """Return all files that are in git or would be, and the folders that hold them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"what belongs to the repository is not known without git: {error}")
    files = {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    parents = {parent for name in files for parent in Path(name).parents if parent != Path()}
    return files | {f"{parent.as_posix()}/" for parent in parents}


def parent_of(path: str) -> str:
    """Return the folder that holds a file or folder, with a slash; nothing for the root."""
    folder, slash, _ = path.removesuffix("/").rpartition("/")
    return folder + slash


def test_what_is_listed_is_there(on_disk):
    """A file that was moved or removed has no line any more."""
    assert sorted(listed().keys() - on_disk) == []


def test_a_folder_is_listed_as_a_whole(on_disk):
    """Whoever opens a folder on the page finds everything in it that is there."""
    lines = listed()
    opened = {parent_of(path) for path in lines}
    missing = {
        path
        for path in on_disk - lines.keys()
        if parent_of(path) in opened and Path(path).name not in LEFT_OUT
    }
    assert sorted(missing) == []


def test_what_a_newcomer_looks_for_is_open(on_disk):
    """The sources have a line for each module, and so have the tests of the whole system."""
    opened = {parent_of(path) for path in listed()}
    wanted = {path for path in on_disk if path.endswith("/") and path.startswith(OPEN_THROUGHOUT)}
    assert sorted((wanted | OPEN) - opened) == []


def test_every_line_says_what_it_is_for():
    """A name alone explains nothing."""
    assert [path for path, purpose in listed().items() if not purpose] == []
