"""Run UDF scripts with exasol-udf-mock-python, on this machine or in the container.

A file has a script, its columns, its connections and its groups of rows as JSON. The last line
that is printed has the rows that the script emitted, and how often it opened a model.

With an argument, the file of that name is run. Without, standard input has one request a line, and
each is run in a fork of this process, so that what all scripts import is imported once.
"""

import gc
import importlib
import json
import math
import os
import re
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from exasol_udf_mock_python import mock_context
from exasol_udf_mock_python.column import Column
from exasol_udf_mock_python.connection import Connection
from exasol_udf_mock_python.group import Group
from exasol_udf_mock_python.mock_exa_environment import MockExaEnvironment
from exasol_udf_mock_python.mock_meta_data import MockMetaData
from exasol_udf_mock_python.udf_mock_executor import UDFMockExecutor

NUMBERS = {int, Decimal, float}
# Which columns take a data frame's column, by the kind of its dtype. Unsigned integers are left
# out: the client makes large ones negative.
TAKEN_BY = {"i": NUMBERS, "f": NUMBERS, "O": {*NUMBERS, str}}
opened = []


class ClientContext(mock_context.StandaloneMockContext):
    """Pass data to a script and take it from there by the rules of Exasol's UDF client.

    exasol-udf-mock-python passes on every value as it is, and so cannot show that a script changes
    ids. These are the rules for the types on our pages, measured with the client itself; they
    stand in for it until UDFs can be run without a database.
    """

    def get_dataframe(self, num_rows, start_col=0):
        """Return the next rows; the dtype of a column depends on whether a NULL is among them."""
        rows = []
        while self._data is not None and (num_rows == "all" or len(rows) < num_rows):
            rows.append(self._data)
            self.next()
        if not rows:
            return None
        columns = list(zip(self._metadata.input_columns, zip(*rows, strict=True), strict=True))
        return pd.DataFrame({c.name: received(c, values) for c, values in columns[start_col:]})

    def emit(self, *values):
        """Take one row, or a data frame."""
        columns = self._metadata.output_columns
        if len(values) == 1 and isinstance(values[0], pd.DataFrame):
            self._output.extend(rows_of(values[0], columns))
        else:
            cells = zip(values, columns, strict=True)
            self._output.append(tuple(sent(value, column) for value, column in cells))


def received(column, values):
    """Return a column as a script gets it: integers beside a NULL become floats."""
    # pandas does the same with None among numbers, if it may choose
    chooses = column.type in (int, float) and any(value is not None for value in values)
    return pd.Series(values, dtype=None if chooses else object)


def rows_of(frame, columns):
    """Return the rows of a data frame as the client sends them: from a single array."""
    if not len(frame):
        raise ValueError("the client refuses a data frame without rows (1087)")
    if len(frame.columns) != len(columns):
        raise ValueError("the client refuses another number of columns (1088)")
    for dtype, column in zip(frame.dtypes, columns, strict=True):
        kind = dtype.kind if isinstance(dtype, np.dtype) else None
        if column.type not in TAKEN_BY.get(kind, ()):
            raise TypeError(f"the client refuses {dtype} for {column.name} {column.sql_type}")
    # integers beside floats become floats here
    array = frame.values  # noqa: PD011 -- as the client does it
    kinds = [dtype.kind for dtype in frame.dtypes]
    return [tuple(map(sent, row, columns, kinds)) for row in array.tolist()]


def sent(value, column, kind="O"):
    """Return a value as it arrives in a column.

    It must be of a type of Python's own, not numpy's float64 for example, and fit. In a data
    frame's column of numbers, a float for a DECIMAL is truncated, and NaN is NULL.
    """
    if value is None:
        return None
    if kind != "O":
        return None if math.isnan(value) else column.type(value)
    accepted = {int, Decimal} if column.type in (int, Decimal) else {column.type}
    if type(value) not in accepted:
        raise TypeError(
            f"the client refuses {value!r} of {type(value)} for {column.name} {column.sql_type} "
            "(1098, in a data frame 1056)"
        )
    return value


def python_type(sql):
    """Return the type that values of an SQL type have in a script."""
    if decimal := re.fullmatch(r"DECIMAL\((\d+),\s*0\)", sql):
        return int if int(decimal[1]) <= 18 else Decimal
    return {"VARCHAR": str, "DOUBLE": float}[sql.partition("(")[0]]


def described(pairs):
    """Describe columns to the mock."""
    return [Column(name, python_type(sql), sql) for name, sql in pairs]


def typed(row, columns):
    """Return a row with the types that the columns have in a script."""
    cells = zip(row, columns, strict=True)
    return tuple(None if value is None else column.type(value) for value, column in cells)


def watch(event, arguments):
    """Note each time that the process opens a model, whichever way."""
    if event == "open" and isinstance(arguments[0], str):
        opened.extend([None] * (os.path.basename(arguments[0]) == "MLmodel"))  # noqa: PTH119


def run(file):
    """Run a script, and print what it emitted."""
    udf = json.loads(Path(file).read_text(encoding="utf-8"))
    meta = MockMetaData(
        script_code_wrapper_function=None,
        input_type=udf["input"],
        input_columns=described(udf["columns"]),
        output_type=udf["output"],
        output_columns=described(udf["emitted"]),
    )
    # the mock takes a function of this file, or nothing
    meta._script_code = udf["code"]
    connections = {name: Connection(*values) for name, values in udf["connections"].items()}
    mock_context.StandaloneMockContext = ClientContext
    sys.addaudithook(watch)
    groups = UDFMockExecutor().run(
        [Group([typed(row, meta.input_columns) for row in rows]) for rows in udf["groups"]],
        MockExaEnvironment(meta, connections),
    )
    rows = [row for group in groups for row in group.rows]
    # a Decimal as text
    print(json.dumps({"rows": rows, "opened": len(opened)}, default=str), flush=True)  # noqa: T201


def serve():
    """Run each file that standard input names in a process of its own, and print how it ended."""
    # what the scripts and their models import
    for module in ("mlflow.pyfunc", "mlflow.sklearn", "skops.io", "sklearn.linear_model"):
        importlib.import_module(module)
    gc.freeze()  # a collection in a fork would copy all their memory
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            for stream, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.environ.update(request["environment"])
            os.chdir(Path(request["file"]).parent)
            run(request["file"])
            return
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)  # noqa: T201


if len(sys.argv) > 1:
    run(sys.argv[1])
else:
    serve()
