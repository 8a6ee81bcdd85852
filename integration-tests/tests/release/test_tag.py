"""``nox -s release:check``: correct tags are accepted, and problems of others reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CORE, PLUGIN, TESTING = (f"mlflow-bucketfs-{name}" for name in ("core", "plugin", "testing"))
OURS = "mlflow-bucketfs/mlflow-bucketfs"


@pytest.fixture
def repository(tmp_path):
    """The files of this repository that a release reads, ready for the release of core 0.1.7."""
    for package in (CORE, PLUGIN, TESTING):
        folder = tmp_path / "packages" / package
        folder.mkdir(parents=True)
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / "packages" / package / name, folder)
    core = tmp_path / "packages" / CORE
    change(core / "pyproject.toml", '\nversion = "0.1.0"', '\nversion = "0.1.7"')
    change(
        core / "CHANGELOG.md",
        "\n## 0.1.0 - unreleased\n",
        "\n## 0.1.7 - 2026-12-31\n\n- #70: Faster.\n\n- #71: Safer.\n\n## 0.1.0 - 2026-12-01\n",
    )
    return tmp_path


@pytest.fixture
def check(repository):
    """Return a function that runs the check on these files."""

    def run(*arguments):
        return subprocess.run(
            [
                sys.executable,
                ROOT / "release" / "release_check.py",
                "--root",
                repository,
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def change(file, old, new):
    """Replace a text that occurs once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_release(check, tmp_path):
    """A correct tag prints the newest changes and writes the workflow's notes and outputs."""
    notes, outputs = tmp_path / "notes.md", tmp_path / "outputs"
    outputs.write_text("before=1\n", encoding="utf-8")

    done = check(f"{CORE}-v0.1.7", "--repository", OURS, "--notes", notes, "--outputs", outputs)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "- #70: Faster.\n\n- #71: Safer.\n"
    assert notes.read_text(encoding="utf-8") == done.stdout
    assert outputs.read_text(encoding="utf-8").splitlines() == [
        "before=1",
        "files=mlflow_bucketfs_core-0.1.7*",
        f"package={CORE}",
        "version=0.1.7",
    ]


def test_rehearsal(check):
    """A package instead of a tag is checked too, but may be unreleased."""
    assert check(CORE).returncode == 0
    assert check(PLUGIN, "--repository", OURS).returncode == 0


@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        (("CHANGELOG.md", "0.1.7 - 2026-12-31", "0.1.7 - unreleased"), "entry is `unreleased`"),
        (("CHANGELOG.md", "## 0.1.7", "## 0.1.6"), "top entry is 0.1.6, not 0.1.7"),
        (("CHANGELOG.md", "## 0.1.7 - 2026-12-31", "## Next"), "top entry is 0.1.0, not 0.1.7"),
        (("CHANGELOG.md", "2026-12-31", "2026-02-30"), "neither a day such as 2026-12-31"),
        (("CHANGELOG.md", "- #70: Faster.\n\n- #71: Safer.\n", ""), "entry is empty"),
        (("pyproject.toml", '"0.1.7"', '"0.1.8"'), "tag has 0.1.7, but pyproject.toml has 0.1.8"),
        (("pyproject.toml", '"0.1.7"', '"0.1"'), "0.1 is not a version of SemVer"),
        (("pyproject.toml", '"0.1.7"', '"new"'), "new is not a version of SemVer"),
        (("pyproject.toml", "Security = ", "Safety = "), "[project.urls] has no Security"),
        (("README.md", "# mlflow-bucketfs-core\n", "[a](../b.md)\n"), "links to ../b.md, which"),
    ],
)
def test_problem(check, repository, mistake, problem):
    """A mistake is reported with status 1, and nothing is printed for the release."""
    file, old, new = mistake
    change(repository / "packages" / CORE / file, old, new)
    done = check(f"{CORE}-v0.1.7")
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr


def test_all_problems_at_once(check):
    """One run reports all problems."""
    problems = check(f"{PLUGIN}-v9.9.9").stderr
    assert "The tag has 9.9.9" in problems
    assert "`unreleased`" in problems


def test_links_of_a_fork(check):
    """Links to another repository than the released one are refused."""
    done = check(CORE, "--repository", "someone/mlflow-bucketfs")
    assert done.returncode == 1
    assert "https://github.com/someone/mlflow-bucketfs." in done.stderr
    assert check(CORE, "--repository", "mlflow-bucketfs/mlflow").returncode == 1


@pytest.mark.parametrize("package", [PLUGIN, TESTING])
def test_next_minor_version_of_core(check, repository, package):
    """After a new minor version of core, a package must allow it before its release."""
    core, own = (repository / "packages" / p / "pyproject.toml" for p in (CORE, package))
    change(core, '\nversion = "0.1.7"', '\nversion = "0.2.0"')
    assert f"requires {CORE}<0.2,>=0.1.0, but this repository has 0.2.0" in check(package).stderr
    change(own, f'"{CORE}>=0.1.0,<0.2"', f'"{CORE}>=0.2.0,<0.3"')
    assert check(package).returncode == 0


@pytest.mark.parametrize("tag", ["v0.1.7", f"{CORE}-0.1.7", "mlflow-bucketfs-slc-v0.1.7", ""])
def test_foreign_tag(check, tag):
    """A tag of another form is refused."""
    done = check(tag)
    assert done.returncode == 1
    assert "is not a tag such as mlflow-bucketfs-core-v0.1.0" in done.stderr
