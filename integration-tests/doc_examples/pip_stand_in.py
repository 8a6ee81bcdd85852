"""Stands for ``pip`` on the pages: installs nothing, and makes sure that the package is there.

Each requirement has to be a distribution of this environment, with the extras and in a version as
required, or a program (``uv``). What is to be removed stays. ``nox -s package:check`` installs the
packages for real. A program, not a module.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_FLAGS = {"-q", "--quiet", "-U", "--upgrade"}


def problem_with(arguments: list[str]) -> str | None:
    """Return why a command of pip would not do what the page says, as far as can be told."""
    if arguments[:1] == ["uninstall"]:
        return None
    if arguments[:1] != ["install"]:
        return f"`pip {' '.join(arguments[:1])}` is not understood"
    rest = iter(arguments[1:])
    requirements = []
    for argument in rest:
        if argument in {"-c", "--constraint"}:
            file = Path(next(rest, ""))
            if not file.is_file():
                return f"there is no file {file}"
        elif argument.startswith("-") and argument not in _FLAGS:
            return f"the option {argument} is not understood"
        elif argument not in _FLAGS:
            requirements.append(argument)
    if not requirements:
        return "no requirement was given"
    return next(filter(None, map(_problem_with_requirement, requirements)), None)


def _problem_with_requirement(text: str) -> str | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return f"{text!r} is no requirement: {error}"
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        return None if shutil.which(requirement.name) else f"{requirement.name} is not here"
    if found.version not in requirement.specifier:
        return f"{requirement.name} is here in version {found.version}, not {requirement.specifier}"
    provided = {canonicalize_name(each) for each in found.metadata.get_all("Provides-Extra") or ()}
    unknown = {canonicalize_name(extra) for extra in requirement.extras} - provided
    return f"{requirement.name} has no extra {', '.join(sorted(unknown))}" if unknown else None


if __name__ == "__main__":
    sys.exit(problem_with(sys.argv[1:]))
