"""The top entry of a package's changelog, which becomes the text of the release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from release_check.commands import CheckError

_HEADING = re.compile(r"^## (?P<version>\S+) - (?P<when>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """What changed in one version.

    Attributes:
        version: as written.
        released: the day; ``None`` while it says ``unreleased``.
        notes: Markdown, without the heading.
    """

    version: str
    released: date | None
    notes: str


def top_entry(changelog: str) -> Entry:
    """Return the first entry.

    Args:
        changelog: the file's text. Entries begin with ``## 0.2.0 - 2026-12-31``, or with
            ``## 0.2.0 - unreleased``.

    Returns:
        The entry.

    Raises:
        CheckError: there is none, or what should be its day is none.
    """
    first = _HEADING.search(changelog)
    if first is None:
        raise CheckError("The changelog has no entry `## VERSION - DATE`.")
    following = re.compile(r"^## ", re.MULTILINE).search(changelog, first.end())
    notes = changelog[first.end() : following.start() if following else None].strip()
    return Entry(first["version"], _day(first["when"]), notes)


def _day(text: str) -> date | None:
    if text == "unreleased":
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CheckError(
            f"The changelog's top entry is of {text!r}, which is neither a day such as "
            "2026-12-31 nor `unreleased`."
        ) from error
