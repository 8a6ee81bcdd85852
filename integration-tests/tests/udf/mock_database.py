"""A database for the statements of the pages with UDFs, where there is no Exasol.

SQLite evaluates which rows a script gets, in which groups; the script runs in a process of its
own, which the caller provides.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any

_SCRIPT = re.compile(
    r"CREATE OR REPLACE \w+ (?P<input>SCALAR|SET) SCRIPT (?P<name>\w+)"
    r"\((?P<columns>.*?)\)\s+(?P<output>RETURNS|EMITS) (?P<emitted>.*?) AS\n(?P<code>.*)",
    re.DOTALL,
)
_CONNECTION = re.compile(
    r"CREATE OR REPLACE CONNECTION (?P<name>\w+) TO '(?P<address>[^']*)'"
    r"(?: USER '(?P<user>[^']*)' IDENTIFIED BY '(?P<password>[^']*)')?"
)
_CALL = re.compile(
    r"SELECT (?P<name>\w+)\((?P<arguments>.*?)\)"
    r"(?P<source>\s+FROM (?:(?!\s+GROUP BY ).)*)?(?:\s+GROUP BY (?P<key>.*))?",
    re.DOTALL,
)
_BETWEEN_COLUMNS = re.compile(r",\s*(?![^(]*\))")


class MockDatabase:
    """Tables, scripts and connections, as the statements create them.

    Args:
        run_udf: runs a script, described as ``run_udf.py`` reads it, and returns what that prints.
    """

    def __init__(self, run_udf: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.models_opened = 0
        self._run_udf = run_udf
        self._scripts: dict[str, dict[str, Any]] = {}
        self._connections: dict[str, tuple[str, str, str]] = {}
        self._tables = sqlite3.connect(":memory:")
        # one node
        self._tables.create_function("IPROC", 0, lambda: 0)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement, and return the rows that a script returned or emitted."""
        if script := _SCRIPT.fullmatch(statement):
            self._scripts[script["name"]] = _described(script)
        elif connection := _CONNECTION.fullmatch(statement):
            values = connection.group("address", "user", "password")
            self._connections[connection["name"]] = values
        elif call := _CALL.fullmatch(statement):
            return self._call(call)
        else:
            self._tables.execute(statement)
        return []

    def close(self) -> None:
        """Forget everything."""
        self._tables.close()

    def _call(self, call: re.Match[str]) -> list[tuple[Any, ...]]:
        key = call["key"] or "0"
        rows = self._tables.execute(
            f"SELECT {key}, {call['arguments']}{call['source'] or ''} ORDER BY 1"
        ).fetchall()
        done = self._run_udf(
            {
                **self._scripts[call["name"]],
                "connections": self._connections,
                "groups": [
                    [row[1:] for row in group] for _, group in groupby(rows, key=itemgetter(0))
                ],
            }
        )
        self.models_opened = done["opened"]
        return [tuple(row) for row in done["rows"]]


def _described(script: re.Match[str]) -> dict[str, Any]:
    returns = script["output"] == "RETURNS"
    emitted = f"result {script['emitted']}" if returns else script["emitted"][1:-1]
    return {
        **script.groupdict(),
        "columns": _columns(script["columns"]),
        "emitted": _columns(emitted),
    }


def _columns(text: str) -> list[list[str]]:
    return [each.split(maxsplit=1) for each in _BETWEEN_COLUMNS.split(text.strip())]
