"""A database that executes the statements of the pages with UDFs, without Exasol.

SQLite selects and groups the rows of a script; `UdfRunner` runs the script.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from mlflow_bucketfs_testing import Udf, UdfRunner

_CONNECTION = re.compile(
    r"CREATE OR REPLACE CONNECTION (?P<name>\w+) TO '(?P<address>[^']*)'"
    r"(?: USER '(?P<user>[^']*)' IDENTIFIED BY '(?P<password>[^']*)')?"
)
_CALL = re.compile(
    r"SELECT (?P<name>\w+)\((?P<arguments>.*?)\)"
    r"(?P<source>\s+FROM (?:(?!\s+GROUP BY ).)*)?(?:\s+GROUP BY (?P<key>.*))?",
    re.DOTALL,
)
# Not a valid name of a parameter
_KEY = "group by"


class Database:
    """The tables, scripts and connections that the statements create.

    Attributes:
        output: output of the script in the last call.
    """

    def __init__(self) -> None:
        self.output = ""
        self._scripts: dict[str, str] = {}
        self._connections: dict[str, tuple[str, str, str]] = {}
        self._tables = sqlite3.connect(":memory:")
        # the database has one node
        self._tables.create_function("IPROC", 0, lambda: 0)

    def execute(self, statement: str, runner: UdfRunner) -> list[tuple[Any, ...]]:
        """Execute a statement, and return the rows that a script returned or emitted.

        Args:
            statement: one statement.
            runner: runs the scripts.
        """
        if " SCRIPT " in statement.partition("\n")[0]:
            self._scripts[runner.create(statement).script.name] = statement
        elif connection := _CONNECTION.fullmatch(statement):
            address, user, password = connection.group("address", "user", "password")
            self._connections[connection["name"]] = (address, user or "", password or "")
        elif call := _CALL.fullmatch(statement):
            udf = runner.create(self._scripts[call["name"].upper()])
            return self._call(udf, call)
        else:
            self._tables.execute(statement)
        return []

    def close(self) -> None:
        """Close the tables, which are lost."""
        self._tables.close()

    def _call(self, udf: Udf, call: re.Match[str]) -> list[tuple[Any, ...]]:
        key = call["key"] or "0"
        rows = self._tables.execute(
            f"SELECT {key}, {call['arguments']}{call['source'] or ''} ORDER BY 1"
        )
        labels = [_KEY, *(column.name for column in udf.script.inputs)]
        result = udf.run(
            [dict(zip(labels, row, strict=True)) for row in rows],
            groups=_KEY if udf.script.kind == "SET" else None,
            connections=self._connections,
        )
        self.output = result.output
        return result.rows
