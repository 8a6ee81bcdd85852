"""Read the pages with UDFs: their Python, and their SQL statements by section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_FILE = _ROOT / "docs" / "user" / "udfs.md"
CONTAINER_README = _ROOT / "slc" / "README.md"
_SECTION = re.compile(r"^## (?P<heading>.+)\n(?P<text>(?:(?!## ).*\n)*)", re.MULTILINE)
_BLOCK = r"^```{}\n(.*?)^```$"
# A script ends with a line that holds a slash, everything else with a semicolon
_STATEMENT = re.compile(
    r"(CREATE OR REPLACE \w+ (?:SCALAR|SET) SCRIPT .*?)\n/$|(.+?);$", re.MULTILINE | re.DOTALL
)

# The placeholders of the page, which every reader replaces. Tests must replace nothing else.
LOCATION = "exa+bfss://db.example.com:2581/bfsdefault/default/mlflow"
MODEL_LOCATION = f"{LOCATION}/…"
MODEL_PATH = "/buckets/bfsdefault/default/mlflow/…"
TRACKING_SERVER = "http://mlflow.example.com:5000"
READ_PASSWORD = "the read password"
LANGUAGE = "PYTHON3_MLFLOW"


def python(stand_ins: Mapping[str, str]) -> str:
    """Return the Python of the page, as one program."""
    return _replaced("\n".join(_blocks("python", _text())), stand_ins)


def statements(heading: str, stand_ins: Mapping[str, str]) -> list[str]:
    """Return the statements of a section in their order, as a client would send them."""
    sections = {each["heading"]: each["text"] for each in _SECTION.finditer(_text())}
    return _statements(sections[heading], stand_ins)


def sql() -> str:
    """Return all SQL of the page."""
    return "".join(sql_blocks(_text()))


def sql_blocks(text: str) -> list[str]:
    """Return the SQL of a page, block by block."""
    return list(_blocks("sql", text))


def headings() -> list[str]:
    """Return the headings of the sections that have statements."""
    return [each["heading"] for each in _SECTION.finditer(_text()) if "```sql" in each["text"]]


def _text() -> str:
    return _FILE.read_text(encoding="utf-8")


def _statements(text: str, stand_ins: Mapping[str, str]) -> list[str]:
    found = _STATEMENT.finditer("".join(_blocks("sql", text)))
    return [_replaced(each[1] or each[2].strip(), stand_ins) for each in found]


def _blocks(language: str, text: str) -> Iterator[str]:
    return (
        each[1] for each in re.finditer(_BLOCK.format(language), text, re.MULTILINE | re.DOTALL)
    )


def _replaced(text: str, stand_ins: Mapping[str, str]) -> str:
    # the longest first, because one is a prefix of another
    for printed in sorted(stand_ins, key=len, reverse=True):
        text = text.replace(printed, stand_ins[printed])
    return text
