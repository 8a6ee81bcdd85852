"""Run a UDF script with exasol-udf-mock-python; runs in the container.

argv: the script's text, the rows of its one group as JSON. Prints the emitted rows as JSON.
"""

import json
import sys

from exasol_udf_mock_python.column import Column
from exasol_udf_mock_python.group import Group
from exasol_udf_mock_python.mock_exa_environment import MockExaEnvironment
from exasol_udf_mock_python.mock_meta_data import MockMetaData
from exasol_udf_mock_python.udf_mock_executor import UDFMockExecutor

script, rows = sys.argv[1], json.loads(sys.argv[2])
numbers = [Column(name, float, "DOUBLE") for name in "abcd"]
key = Column("id", int, "BIGINT")
meta = MockMetaData(
    script_code_wrapper_function=None,
    input_columns=[Column("model", str, "VARCHAR(2000)"), key, *numbers],
    input_type="SET",
    output_columns=[key, Column("species", int, "BIGINT")],
    output_type="EMITS",
)
# the mock takes a function of this file, or nothing
meta._script_code = script
groups = UDFMockExecutor().run([Group([tuple(row) for row in rows])], MockExaEnvironment(meta))
print(json.dumps([list(map(int, row)) for group in groups for row in group.rows]))  # noqa: T201
