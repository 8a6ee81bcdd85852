"""The tests execute every statement of the pages."""

from __future__ import annotations

import pytest

from . import page


def test_the_container_readme_shows_a_script_of_the_page():
    """The scripts in the container's README are scripts of the page."""
    blocks = page.sql_blocks(page.CONTAINER_README.read_text(encoding="utf-8"))
    shown = [block for block in blocks if not block.startswith("ALTER ")]
    assert shown
    assert [block for block in shown if block not in page.sql()] == []


def test_every_statement_of_the_page_is_executed():
    """The page has no sections with statements except those that the tests execute."""
    assert page.headings() == [
        "The model and the flowers",
        "One row at a time, by location",
        "By path",
        "By alias",
        "Many rows at a time",
        "Several models, one per group",
        "Start faster",
        "With a fallback to HTTP",
    ]


def test_the_page_is_split_as_pyexasol_does():
    """The page has the same statements as pyexasol finds in it."""
    reason = "comes with the group exasol: uv run --group exasol pytest"
    pyexasol = pytest.importorskip("pyexasol._sql_splitter", reason=reason)
    ours = [each for heading in page.headings() for each in page.statements(heading, {})]
    assert ours == [each.strip() for each in pyexasol.split_sql_script(page.sql())]
