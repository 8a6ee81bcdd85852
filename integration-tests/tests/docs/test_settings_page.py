"""The tables of environment variables are complete and correct."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from mlflow_bucketfs_core import ConnectionSettings
from mlflow_bucketfs_core.http.pool import Timeouts

_ROOT = Path(__file__).parents[3]
_SETTINGS_PAGE = _ROOT / "docs" / "user" / "settings.md"
_README = _ROOT / "README.md"
_TIMEOUT = "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"
_DIGITS = "0123456789abcdef" * 4


class _Recording(dict[str, str]):
    """An environment that records the variables that are read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def get(self, key, default=None):
        self.read.add(key)
        return default


def _variables_read() -> set[str]:
    environment = _Recording()
    ConnectionSettings.from_env(environment)
    return environment.read


def _rows(page: Path, heading: str) -> dict[str, list[str]]:
    """Return the cells after the first one of the table rows below a heading, by variable."""
    text = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| *`[A-Z].*\|$", text, re.MULTILINE):
        names, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        variables = [_in_full(name) for name in re.findall(r"`([^`]+)`", names)]
        for index, variable in enumerate(variables):
            # one row may have several variables, each with its default
            default = cells[0].split(", ")[index] if len(variables) > 1 else cells[0]
            found[variable] = [default, *cells[1:]]
    return found


def _in_full(name: str) -> str:
    matching = [known for known in _variables_read() if known.endswith(name.lstrip("…"))]
    return matching[0] if name.startswith("…") and len(matching) == 1 else name


def _tables() -> dict[str, list[str]]:
    headings = ["Credentials", "HTTPS", "Transfers", "Mounted buckets"]
    tables = [_rows(_SETTINGS_PAGE, heading) for heading in headings]
    return {variable: cells for table in tables for variable, cells in table.items()}


def _changed(environment: dict[str, str]) -> set[str]:
    """Return the attributes that differ from those of an empty environment."""
    now, empty = ConnectionSettings.from_env(environment), ConnectionSettings.from_env({})
    names = {field.name for field in fields(ConnectionSettings)} - {"mount_root_is_explicit"}
    return {name for name in names if getattr(now, name) != getattr(empty, name)}


def test_exactly_the_variables_that_are_read_are_listed():
    """The tables have exactly the variables that are read; the README has some of them."""
    assert _tables().keys() == _variables_read()
    assert set() < _rows(_README, "Settings").keys() < _variables_read()


def test_no_other_variable_of_exasol_is_mentioned():
    """The text of the page names no variable that is not read."""
    mentioned = set(re.findall(r"\bEXA_\w+", _SETTINGS_PAGE.read_text(encoding="utf-8")))
    assert mentioned <= _variables_read()


_DEFAULTS = [
    pytest.param(variable, cells[0], id=f"{page}-{variable}")
    for page, table in (
        ("settings.md", _tables()),
        ("README.md", _rows(_README, "Settings")),
    )
    for variable, cells in table.items()
]


@pytest.mark.parametrize(("variable", "default"), _DEFAULTS)
def test_the_default_is_the_real_one(variable, default):
    """A variable with its default changes no setting; one without a default is unset."""
    example = _tables()[variable][1].strip("`").replace("AB:CD:…", _DIGITS)
    (attribute,) = _changed({variable: example})
    if variable == _TIMEOUT:
        # the timeout is not a fixed value: it grows with an upload's size
        assert float(default.strip("`")) == Timeouts().idle_s
    elif default.startswith("`"):
        assert _changed({variable: default.strip("`")}) == set()
    else:
        assert getattr(ConnectionSettings(), attribute) is None


def test_a_class_without_environment_has_the_same_defaults():
    """`ConnectionSettings()` equals the settings of an empty environment."""
    assert ConnectionSettings() == ConnectionSettings.from_env({})
