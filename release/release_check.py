"""Check that a tag, the package's metadata and its changelog agree; print the release's text.

The nox session ``release:check`` runs ``python release/release_check.py TAG``.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from nox.project import load_toml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

_TAG = re.compile(r"(?P<package>mlflow-bucketfs-[a-z]+)(?:-v(?P<version>.+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_ENTRY = re.compile(
    r"^## (?P<version>\S+) - (?P<day>\S+)$(?P<notes>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
_URLS = ("Homepage", "Documentation", "Source", "Changelog", "Issues", "Security")
# `](target)` of Markdown and `src="target"` of HTML in it, unless absolute or within the page
_RELATIVE_LINK = re.compile(r"(?:\]\(|(?:src|href)=\")(?!https?://|mailto:|#)([^)\"\s]+)")


@dataclass(frozen=True)
class Release:
    """A release, as a tag would publish it.

    Attributes:
        package: name of the distribution.
        version: the one in its metadata.
        notes: Markdown of the changelog's top entry, without its heading.
        problems: reasons not to publish it, each a sentence.
    """

    package: str
    version: str
    notes: str
    problems: tuple[str, ...]


def check(tag: str, root: Path = ROOT, repository: str | None = None) -> Release | None:
    """Check the release that a tag would publish.

    Args:
        tag: such as ``mlflow-bucketfs-core-v0.1.0``; or a package's name, to rehearse the release
            of its next version, whose changelog may still be ``unreleased``.
        root: the repository's directory.
        repository: ``owner/name`` of the repository that releases; the package's links must name
            it.

    Returns:
        The release with its problems; ``None`` if the tag names no package of ours.
    """
    match = _TAG.fullmatch(tag)
    if match is None or not (folder := root / "packages" / match["package"]).is_dir():
        return None
    project = _project(folder)
    version = project["version"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    notes, problems = _changelog(folder, version, rehearsal=match["version"] is None)
    if match["version"] not in (None, version):
        problems.append(f"The tag has {match['version']}, but pyproject.toml has {version}.")
    if not _VERSION.fullmatch(version):
        problems.append(f"{version} is not a version of SemVer: MAJOR.MINOR.PATCH.")
    problems += _url_problems(project.get("urls", {}), repository)
    problems += _sibling_problems(project, root)
    problems += [
        f"README.md links to {target}, which does not work on PyPI: make it absolute."
        for target in _RELATIVE_LINK.findall(readme)
    ]
    return Release(match["package"], version, notes, tuple(problems))


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = load_toml(folder / "pyproject.toml")["project"]
    return project


def _changelog(folder: Path, version: str, *, rehearsal: bool) -> tuple[str, list[str]]:
    """Return the text of the changelog's top entry, and the problems of this entry."""
    entry = _ENTRY.search((folder / "CHANGELOG.md").read_text(encoding="utf-8"))
    if entry is None:
        return "", ["The changelog has no entry `## VERSION - DATE`."]
    notes, problems = entry["notes"].strip(), []
    if entry["version"] != version:
        problems.append(f"The changelog's top entry is {entry['version']}, not {version}.")
    if entry["day"] == "unreleased":
        if not rehearsal:
            problems.append("The changelog's top entry is `unreleased`.")
    elif not _is_day(entry["day"]):
        problems.append(
            f"The changelog's top entry is dated {entry['day']!r}, which is neither a day such as "
            "2026-12-31 nor `unreleased`."
        )
    if not notes:
        problems.append("The changelog's top entry is empty.")
    return notes, problems


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _url_problems(urls: dict[str, str], repository: str | None) -> list[str]:
    problems = [f"[project.urls] has no {label}." for label in _URLS if label not in urls]
    if repository is not None:
        home = f"https://github.com/{repository}"
        problems += [
            f"{label} is {url}, which is not in the repository that releases, {home}."
            for label, url in urls.items()
            if url.startswith("https://github.com/") and not f"{url}/".startswith(f"{home}/")
        ]
    return problems


def _sibling_problems(project: dict[str, Any], root: Path) -> list[str]:
    """Find requirements that our packages in this repository do not meet.

    ``uv lock`` does not: it accepts a member of the workspace with any version.
    """
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    lines = [
        *project.get("dependencies", []),
        *(line for extra in extras.values() for line in extra),
    ]
    problems = []
    for requirement in map(Requirement, lines):
        folder = root / "packages" / requirement.name
        if not folder.is_dir():
            continue
        present = _project(folder)["version"]
        if not requirement.specifier.contains(present, prereleases=True):
            problems.append(f"It requires {requirement}, but this repository has {present}.")
    return problems


def main() -> int:
    """Check the tag on the command line; return 1 if it must not be released."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tag", help="PACKAGE-vVERSION; or PACKAGE, to rehearse")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository's directory")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="that the links must name")
    parser.add_argument("--notes", type=Path, help="write the release's text into this file")
    parser.add_argument("--outputs", type=Path, help="append package, version, files to this file")
    options = parser.parse_args()
    release = check(options.tag, options.root, options.repository)
    if release is None:
        sys.stderr.write(f"{options.tag!r} is not a tag such as mlflow-bucketfs-core-v0.1.0.\n")
        return 1
    if release.problems:
        sys.stderr.writelines(f"{release.package}: {problem}\n" for problem in release.problems)
        return 1
    sys.stdout.write(f"{release.notes}\n")
    if options.notes is not None:
        options.notes.write_text(f"{release.notes}\n", encoding="utf-8")
    if options.outputs is not None:
        stem = release.package.replace("-", "_")
        with options.outputs.open("a", encoding="utf-8") as outputs:
            outputs.write(f"files={stem}-{release.version}*\n")
            outputs.write(f"package={release.package}\n")
            outputs.write(f"version={release.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
