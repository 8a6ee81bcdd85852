"""Run a UDF script with exasol-udf-mock-python, on this machine or in the container.

argv: a file with the script, its columns, its connections and its groups of rows as JSON.
The last line that is printed has the rows that it emitted, and how often it opened a model.
"""

import json
import os
import sys
from pathlib import Path

from exasol_udf_mock_python.column import Column
from exasol_udf_mock_python.connection import Connection
from exasol_udf_mock_python.group import Group
from exasol_udf_mock_python.mock_exa_environment import MockExaEnvironment
from exasol_udf_mock_python.mock_meta_data import MockMetaData
from exasol_udf_mock_python.udf_mock_executor import UDFMockExecutor

# As Exasol hands them to Python
TYPES = {"VARCHAR": str, "DOUBLE": float, "DECIMAL": int}
opened = []


def watch(event, arguments):
    """Note each time that the process opens a model, whichever way."""
    if event == "open" and isinstance(arguments[0], str):
        opened.extend([None] * (os.path.basename(arguments[0]) == "MLmodel"))  # noqa: PTH119


def columns(pairs):
    """Describe columns to the mock."""
    return [Column(name, TYPES[sql.partition("(")[0]], sql) for name, sql in pairs]


udf = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
meta = MockMetaData(
    script_code_wrapper_function=None,
    input_type=udf["input"],
    input_columns=columns(udf["columns"]),
    output_type=udf["output"],
    output_columns=columns(udf["emitted"]),
)
# the mock takes a function of this file, or nothing
meta._script_code = udf["code"]
connections = {name: Connection(*values) for name, values in udf["connections"].items()}
sys.addaudithook(watch)
groups = UDFMockExecutor().run(
    [Group([tuple(row) for row in rows]) for rows in udf["groups"]],
    MockExaEnvironment(meta, connections),
)
rows = [row for group in groups for row in group.rows]
print(json.dumps({"rows": rows, "opened": len(opened)}))  # noqa: T201
