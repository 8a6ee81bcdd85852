"""The links of the pages have existing targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from doc_examples.blocks import markdown_files
from markdown_it import MarkdownIt
from markdown_it.token import Token

_ROOT = Path(__file__).parents[3]
_PAGES = markdown_files(_ROOT)
# prefix of links into the repository from pages outside it, such as a package's on PyPI
_REPOSITORY = re.compile("https://github.com/mlflow-bucketfs/mlflow-bucketfs/(blob|tree)/main/")
_SITE = "https://mlflow-bucketfs.readthedocs.io/en/latest/"
_MYST_TARGET = re.compile(r"(?m)^\((?P<name>[\w-]+)\)=$")


def _tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt().parse(text):
        yield from (token, *(token.children or ()))


def links(text: str) -> list[str]:
    """Return the targets of the links and images of a page."""
    targets = (token.attrs.get("href") or token.attrs.get("src") for token in _tokens(text))
    return [str(target) for target in targets if target]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page: of its headings, as GitHub names them, and MyST's targets."""
    names = {match["name"] for match in _MYST_TARGET.finditer(text)}
    tokens = MarkdownIt().parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            title = "".join(part.content for part in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            repeated = sum(
                re.fullmatch(rf"{re.escape(slug)}(-\d+)?", name) is not None for name in names
            )
            names.add(f"{slug}-{repeated}" if repeated else slug)
    return names


def _target(page: Path, link: str) -> tuple[Path, str] | None:
    """Return the file and the anchor of a link; None if it is not to this repository."""
    address, _, anchor = link.partition("#")
    if _REPOSITORY.match(address):
        return _ROOT / _REPOSITORY.sub("", address), anchor
    if address.startswith(_SITE):
        name = address.removeprefix(_SITE).removesuffix(".html") or "index"
        return (_ROOT / "docs" / name).with_suffix(".md"), anchor
    if ":" in address:
        return None
    return (page.parent / address if address else page), anchor


def _broken(page: Path) -> list[str]:
    found = []
    for link in links(page.read_text(encoding="utf-8")):
        target = _target(page, link)
        if target is None:
            continue
        path, anchor = target
        if not path.exists():
            found.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_lead_to_files_and_headings(page):
    """Each link to the repository leads to an existing file and heading."""
    assert _broken(page) == []


@pytest.mark.parametrize(
    "page", sorted(_ROOT.glob("packages/*/*.md")), ids=lambda page: str(page.relative_to(_ROOT))
)
def test_pages_of_packages_have_no_relative_links(page):
    """The pages of packages have no relative links, which do not work on PyPI."""
    relative = [link for link in links(page.read_text(encoding="utf-8")) if ":" not in link]
    assert [link for link in relative if not link.startswith("#")] == []


def test_broken_links_are_found(tmp_path):
    """Links to missing files and headings are reported; links in code are ignored."""
    page = tmp_path / "page.md"
    page.write_text(
        "# The `code`, and *more*\n\n[a](other.md) [b](#nowhere) [c](#the-code-and-more)\n"
        f"[d](page.md) [e](https://example.com/x.md) `[f](g.md)` ![h]({_SITE}user/nothing.html)\n"
        "\n```text\n[i](j.md)\n# No heading\n```\n\n[k](#no-heading)\n",
        encoding="utf-8",
    )
    assert _broken(page) == [
        "other.md: no such file",
        "#nowhere: no such heading",
        f"{_SITE}user/nothing.html: no such file",
        "#no-heading: no such heading",
    ]
