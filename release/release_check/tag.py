"""Whether a tag, a package's metadata and its changelog say the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release_check.changelog import Entry, top_entry
from release_check.commands import CheckError
from release_check.paths import PACKAGES, folder
from release_check.project import Project, read_project

if TYPE_CHECKING:
    from pathlib import Path

_TAG = re.compile(rf"(?P<package>{'|'.join(PACKAGES)})(?:-v(?P<version>.+))?")
_URLS = ("Homepage", "Documentation", "Source", "Changelog", "Issues", "Security")
# `](target)` of Markdown and `src="target"` of HTML in it, unless absolute or within the page
_RELATIVE_LINK = re.compile(r"(?:\]\(|(?:src|href)=\")(?!https?://|mailto:|#)([^)\"\s]+)")


@dataclass(frozen=True)
class Release:
    """What is about to be published.

    Attributes:
        project: the package.
        entry: the top entry of its changelog.
        rehearsal: whether a package was named instead of a tag: nothing will be published.
        problems: why it must not be; each a sentence.
    """

    project: Project
    entry: Entry
    rehearsal: bool
    problems: tuple[str, ...]


def check_tag(tag: str, root: Path, repository: str | None = None) -> Release:
    """Check what a tag would release.

    Args:
        tag: such as ``mlflow-bucketfs-core-v0.1.0``; or a package's name, to rehearse the release
            of its next version, whose changelog may still say ``unreleased``.
        root: the repository's directory.
        repository: ``owner/name`` of the repository that releases; the package's links have to
            lead there.

    Returns:
        The release, with what is wrong with it.

    Raises:
        CheckError: the tag names no package of ours, or the package cannot be read.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        raise CheckError(f"{tag!r} is no tag such as {PACKAGES[0]}-v0.1.0.")
    directory = folder(match["package"], root)
    project = read_project(directory)
    entry = top_entry((directory / "CHANGELOG.md").read_text(encoding="utf-8"))
    readme = (directory / "README.md").read_text(encoding="utf-8")
    rehearsal = match["version"] is None
    problems = [
        *_version_problems(project, entry, match["version"]),
        *([] if rehearsal or entry.released else ["The changelog's top entry is `unreleased`."]),
        *_url_problems(project, repository),
        *_sibling_problems(project, root),
        *(
            f"README.md links to {target}, which leads nowhere on PyPI: make it absolute."
            for target in _RELATIVE_LINK.findall(readme)
        ),
    ]
    return Release(project, entry, rehearsal, tuple(problems))


def _version_problems(project: Project, entry: Entry, tagged: str | None) -> list[str]:
    version = str(project.version)
    problems = []
    if tagged is not None and tagged != version:
        problems.append(f"The tag says {tagged}, pyproject.toml says {version}.")
    if entry.version != version:
        problems.append(f"The changelog's top entry is {entry.version}, not {version}.")
    if len(project.version.release) != len(("major", "minor", "patch")):
        problems.append(f"{version} is no version of SemVer: MAJOR.MINOR.PATCH.")
    if not entry.notes:
        problems.append("The changelog's top entry says nothing.")
    return problems


def _url_problems(project: Project, repository: str | None) -> list[str]:
    problems = [f"[project.urls] has no {label}." for label in _URLS if label not in project.urls]
    if repository is None:
        return problems
    home = f"https://github.com/{repository}"
    problems += [
        f"{label} leads to {url}, which is not in the repository that releases, {home}."
        for label, url in project.urls.items()
        if url.startswith("https://github.com/") and not f"{url}/".startswith(f"{home}/")
    ]
    return problems


def _sibling_problems(project: Project, root: Path) -> list[str]:
    """Find requirements on packages of ours that the present state of these does not meet."""
    problems = []
    for requirement in project.requirements:
        if requirement.name not in PACKAGES:
            continue
        present = read_project(folder(requirement.name, root)).version
        if not requirement.specifier.contains(present, prereleases=True):
            problems.append(f"It requires {requirement}, but that is {present} here.")
    return problems
