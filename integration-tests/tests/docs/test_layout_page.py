"""The trees in ``docs/develop/layout.md`` are the trees on disk."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "develop" / "layout.md"
LINE = re.compile(r"(?P<indent> *)(?P<name>\S+)(?: {2,}(?P<purpose>\S.*))?")

# Python needs these in every package, so the page omits them.
LEFT_OUT = {"__init__.py", "py.typed"}
# Every file and folder in these has a line, at any depth; elsewhere a folder may stay closed.
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
    """Return all paths in the page's trees with their descriptions; folders end with a slash.

    The first line of a tree is its root. The content of a folder follows it, indented by two more
    blanks.
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
            assert path not in found, f"{path} is listed twice"
            found[path] = match["purpose"] or ""
    return found


@pytest.fixture(scope="module")
def on_disk() -> set[str]:
    """Return all files that are in git or not ignored by it, and the folders that contain them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the repository's files are not known without git: {error}")
    files = {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    parents = {parent for name in files for parent in Path(name).parents if parent != Path()}
    return files | {f"{parent.as_posix()}/" for parent in parents}


def parent_of(path: str) -> str:
    """Return the folder that contains a file or folder, with a slash; empty for the root."""
    folder, slash, _ = path.removesuffix("/").rpartition("/")
    return folder + slash


def test_listed_files_exist(on_disk):
    """Each file and folder in a tree exists on disk."""
    assert sorted(listed().keys() - on_disk) == []


def test_a_folder_is_listed_completely(on_disk):
    """If one entry of a folder is listed, all its entries are."""
    lines = listed()
    opened = {parent_of(path) for path in lines}
    missing = {
        path
        for path in on_disk - lines.keys()
        if parent_of(path) in opened and Path(path).name not in LEFT_OUT
    }
    assert sorted(missing) == []


def test_important_folders_are_listed(on_disk):
    """The folders of the sources and of the integration tests are listed with their content."""
    opened = {parent_of(path) for path in listed()}
    wanted = {path for path in on_disk if path.endswith("/") and path.startswith(OPEN_THROUGHOUT)}
    assert sorted((wanted | OPEN) - opened) == []


def test_every_line_has_a_description():
    """Each line of a tree has a description."""
    assert [path for path, purpose in listed().items() if not purpose] == []
