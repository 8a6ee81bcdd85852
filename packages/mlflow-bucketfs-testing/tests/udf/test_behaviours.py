"""The client of ``--mlflow-bucketfs-udf-client`` treats data and errors as Exasol's client does.

The cases are the rows in ``behaviours.py``. Many cases share a process: each is a group of its
input. The processes of the reference client are forks of a process that has imported pandas.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib import util
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import REFERENCE_CLIENT, UdfError, UdfRunner
from mlflow_bucketfs_testing.config import udf_client_option
from mlflow_bucketfs_testing.udf import runner
from mlflow_bucketfs_testing.udf.codec import ProtobufCodec
from mlflow_bucketfs_testing.udf.messages import MessageType, Table, unpack_rows


def _load(name):
    """Import a module of this directory, which is not a package."""
    spec = util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


behaviours = _load("behaviours")

MARK = "behaviour: "


@dataclass(frozen=True)
class Case:
    """One of the cases in a script, selected by the group of a call of ``run``.

    Attributes:
        name: id of the test.
        code: lines of Python.
        outcome: the expected outcome, from the table.
        rows: whether "all", "some" or "none" of the three input rows have values.
    """

    name: str
    code: str
    outcome: object
    rows: str = "all"


@cache
def cases():
    """Return the rows of all tables except `SCRIPTS` as `Case`, by the script's output columns."""
    found = {}
    for output in behaviours.OUTPUTS:
        found[output,] = [
            Case(f"{row.code} into {output}", f"ctx.emit({row.code})", row.outcome(output))
            for row in (*behaviours.FRAMES, *behaviours.VALUES)
        ]
    texts = found.setdefault(("VARCHAR(2000)",), [])
    for read in behaviours.READS:
        name = read.column.partition(" ")[0]
        frame = f"""\
column = ctx.get_dataframe("all")[{name!r}]
ctx.emit(f"{{column.dtype}}: {{column.tolist()[:2]}}")"""
        texts += [
            Case(f"a frame of {name}, {rows} values", frame, [expected], rows)
            for rows, expected in zip(("all", "some", "none"), read.frames, strict=True)
        ]
        texts.append(Case(f"ctx.{name}", f"ctx.emit(repr(ctx[{name!r}]))", [read.row]))
    for step in behaviours.STEPS:
        found.setdefault(step.outputs, []).append(Case(step.what, step.code, step.outcome))
    return found


def statement(outputs):
    """Return a script that runs the cases with these output columns, and prints exceptions."""
    inputs = ", ".join(("behaviour DECIMAL(9,0)", *(read.column for read in behaviours.READS)))
    emits = ", ".join(f"y{number} {output}" for number, output in enumerate(outputs))
    functions = "\n".join(
        f"def case_{number}(ctx):\n" + "\n".join(f"    {line}" for line in case.code.splitlines())
        for number, case in enumerate(cases()[outputs])
    )
    return f"""\
CREATE OR REPLACE PYTHON3 SET SCRIPT behaviours({inputs}) EMITS ({emits}) AS
import datetime
import json
from decimal import Decimal
import numpy as np
import pandas as pd

def frame(column):
    return pd.DataFrame({{"a": column}})

def objects(*column):
    return pd.DataFrame({{"a": list(column)}}, dtype=object)

{functions}

def run(ctx):
    number = ctx.behaviour
    try:
        globals()[f"case_{{number}}"](ctx)
    except Exception as error:
        raised = [number, type(error).__name__, str(error)]
        print("\\n{MARK}" + json.dumps(raised), flush=True)
/
"""


def rows(outputs):
    """Return the input of `statement`: a group for each case."""
    values = tuple(read.value for read in behaviours.READS)
    nulls = (None,) * len(values)
    groups = {"all": [values] * 3, "some": [values, nulls, values], "none": [nulls] * 3}
    numbered = enumerate(cases()[outputs])
    return [(number, *row) for number, case in numbered for row in groups[case.rows]]


class Recorder(ProtobufCodec):
    """A codec that records emitted rows as they are sent, because the host would convert them."""

    def __init__(self):
        self.groups = []

    def encode_response(self, response):
        """Record the types of the output columns."""
        if response.meta is not None:
            self.kinds = [column.type for column in response.meta.output_columns]
        return super().encode_response(response)

    def decode_request(self, data):
        """Record the rows of an EMIT, and return an EMIT without rows."""
        request = super().decode_request(data)
        if request.type is MessageType.RUN:
            self.groups.append([])
        if request.emit is None:
            return request
        columns = unpack_rows(self.kinds, request.emit).columns
        self.groups[-1] += columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        return replace(request, emit=Table(rows=0))


def observed(sent, raised):
    """Return the observed outcome as a `behaviours.Outcome`."""
    if raised is None:
        return sent
    kind, text = raised
    codes = re.findall(r"-UDF-CL-[A-Z-]+-(\d+)", text)
    refused = codes[-1] if codes else kind
    return (sent, refused) if sent else refused


@pytest.fixture(scope="module")
def udf_runner(request):
    """Start a runner with the client of ``--mlflow-bucketfs-udf-client``."""
    name = udf_client_option(request.config)
    if name != REFERENCE_CLIENT:
        with UdfRunner(name) as started:
            yield started
        return
    with _load("fork_client").started() as client, UdfRunner(client) as started:
        yield started


@pytest.fixture(scope="module")
def outcomes(udf_runner):
    """Return a function that runs the cases with some output columns once, and returns outcomes."""

    @cache
    def run(outputs):
        recorder = Recorder()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "ProtobufCodec", lambda: recorder)
            result = udf_runner.create(statement(outputs)).run(rows(outputs), groups="behaviour")
        raised = {}
        for line in result.output.splitlines():
            if line.startswith(MARK):
                number, *error = json.loads(line.removeprefix(MARK))
                raised[number] = error
        return [observed(sent, raised.get(i)) for i, sent in enumerate(recorder.groups)]

    return run


@pytest.mark.parametrize(
    ("outputs", "number"),
    [
        pytest.param(outputs, number, id=case.name)
        for outputs, some in cases().items()
        for number, case in enumerate(some)
    ],
)
def test_data(outcomes, outputs, number):
    """A script reads and sends the values in the table."""
    # compared as texts: 1 differs from 1.0, and NaN equals NaN
    assert repr(outcomes(outputs)[number]) == repr(cases()[outputs][number].outcome)


@pytest.mark.parametrize(
    "script", [pytest.param(script, id=script.what) for script in behaviours.SCRIPTS]
)
def test_scripts(udf_runner, script):
    """A script returns the rows in the table, or fails with the text in it."""
    udf = udf_runner.create(f"CREATE PYTHON3 {script.head} AS\n{script.code}\n/")
    try:
        outcome = [row[0] for row in udf.run(behaviours.SCRIPT_ROWS).rows]
    except UdfError as error:
        outcome = str(error)
    assert outcome == script.outcome
