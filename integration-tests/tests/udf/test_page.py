"""Every statement of the pages is tried."""

from __future__ import annotations

import pytest

from . import page


def test_the_container_readme_shows_a_script_of_the_page():
    """What it says about scoring is what is tested here."""
    blocks = page.sql_blocks(page.CONTAINER_README.read_text(encoding="utf-8"))
    shown = [block for block in blocks if not block.startswith("ALTER ")]
    assert shown
    assert [block for block in shown if block not in page.sql()] == []


def test_every_statement_of_the_page_is_tried():
    """A section with statements that no test reads would stay untried."""
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
    """Statements end where Exasol's own client for Python sees their end."""
    reason = "comes with the group exasol: uv run --group exasol pytest"
    pyexasol = pytest.importorskip("pyexasol._sql_splitter", reason=reason)
    ours = [each for heading in page.headings() for each in page.statements(heading, {})]
    assert ours == [each.strip() for each in pyexasol.split_sql_script(page.sql())]
