"""The page about Exasol's UDF client shows the table that the client tests use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "testing" / "udf-behaviour.md"
WRITER = ROOT / "packages" / "mlflow-bucketfs-testing" / "tests" / "udf" / "behaviour_page.py"


def test_page_has_the_table(tmp_path):
    """The page has the current tables; the message of a failure is the command to write them."""
    page = tmp_path / PAGE.name
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, WRITER, page], check=True)
    command = f"python {WRITER.relative_to(ROOT)} {PAGE.relative_to(ROOT)}"
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), command


@pytest.mark.parametrize("comment", ["<!-- table: frames -->\n", "<!-- end -->\n"])
def test_page_without_a_comment_is_refused(tmp_path, comment):
    """A missing comment for a table is an error, and the page is not changed."""
    page = tmp_path / PAGE.name
    text = PAGE.read_text(encoding="utf-8").replace(comment, "", 1)
    page.write_text(text, encoding="utf-8")
    command = [sys.executable, WRITER, page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ValueError: the page has comments for the tables" in done.stderr
    assert page.read_text(encoding="utf-8") == text
