"""Scoring scripts in a UDF client: each type, with and without NULLs, over several batches."""

# ruff: noqa: DTZ001 -- a TIMESTAMP has no time zone

from __future__ import annotations

import hashlib
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal

import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow_bucketfs_core import udf_path
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_plugin.scoring.spec import (
    Input,
    Key,
    MlflowLoader,
    Output,
    ScoringSpec,
    udf_source,
)
from mlflow_bucketfs_testing import UdfError

ROWS = 25
BATCH = 10
START = datetime(2026, 1, 31, 12)
IDS = [2**53 + 1, 2**63, 10**36 - 1, -(10**36) + 1, None]
# MLflow's type, a type of SQL that suits it, and a value for each row
TYPES = [
    ("boolean", "BOOLEAN", [i % 3 == 0 for i in range(ROWS)]),
    ("integer", "DECIMAL(10,0)", [2**31 - 1 - i for i in range(ROWS)]),
    ("integer", "DOUBLE", [float(i) for i in range(ROWS)]),
    ("long", "DECIMAL(19,0)", [2**63 - 1 - i for i in range(ROWS)]),
    ("long", "DECIMAL(18,0)", [2**53 + i for i in range(ROWS)]),
    ("long", "DECIMAL(36,0)", [-(2**63) + i for i in range(ROWS)]),
    ("float", "DOUBLE", [i / 3 for i in range(ROWS)]),
    ("float", "DECIMAL(18,4)", [Decimal(i) / 4 for i in range(ROWS)]),
    ("double", "DOUBLE", [i / 3 for i in range(ROWS)]),
    ("double", "DECIMAL(9,0)", [10**9 - 1 - i for i in range(ROWS)]),
    ("double", "DECIMAL(18,0)", [2**53 + i for i in range(ROWS)]),
    ("double", "DECIMAL(36,4)", [Decimal(10**26 + i) / 4 for i in range(ROWS)]),
    ("string", "VARCHAR(2000000) UTF8", [f"größe {i}" for i in range(ROWS)]),
    ("string", "CHAR(3)", ["abc"] * ROWS),
    ("datetime", "TIMESTAMP", [START + timedelta(days=i, microseconds=i) for i in range(ROWS)]),
    ("datetime", "DATE", [date(1900, 1, 1) + timedelta(days=i) for i in range(ROWS)]),
    ("datetime", "VARCHAR(30)", [str(START + timedelta(days=i)) for i in range(ROWS)]),
]
COLUMNS = {f"c{n}": column for n, column in enumerate(TYPES)}
WHOLE = ("integer", "long")
NULLABLE = {name: column for name, column in COLUMNS.items() if column[0] not in WHOLE}
FLOATS = {"float": "float32", "double": "float64"}
DTYPES = FLOATS | {"integer": "int32", "long": "int64", "boolean": "bool"}


@pytest.fixture(scope="module")
def models(bucketfs_server, as_writer, tmp_path_factory):
    """Return models that predict their input as text: for ``all`` types, and for nullable types.

    Each is a local folder, and the path of its copy in BucketFS as a UDF sees it.
    """

    class Echo(mlflow.pyfunc.PythonModel):  # within a function, so that it is pickled with its code
        def predict(self, context, model_input: pd.DataFrame, params=None):  # noqa: ARG002
            columns = [model_input[name] for name in model_input]
            shown = [[f"{c.dtype} {value!r}" for value in c.tolist()] for c in columns]
            return ["; ".join(row) for row in zip(*shown, strict=True)]

    def save(name, columns):
        folder = tmp_path_factory.mktemp("model") / name
        schema = Schema([ColSpec(kind, feature) for feature, (kind, _, _) in columns.items()])
        options = {"signature": ModelSignature(schema), "pip_requirements": ["mlflow"]}
        mlflow.pyfunc.save_model(folder, python_model=Echo(), **options)
        uri = bucketfs_server.uri(path=f"types-{uuid.uuid4().hex[:8]}/{name}")
        BucketFSArtifactRepository(uri).log_artifacts(str(folder))
        return folder, udf_path(uri)

    with as_writer():
        return {"all": save("all", COLUMNS), "nullable": save("nullable", NULLABLE)}


@pytest.fixture(scope="module")
def score(models, udf_runner):
    """Return a function that scores rows, with keys, in a UDF client, and returns emitted rows."""

    def score(name, columns, rows, key="DECIMAL(36,0)", **options):
        folder, mounted = models[name]
        files = {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*")
            if file.is_file()
        }
        spec = ScoringSpec(
            model=mounted,
            origin=f"models:/{name}/1",
            keys=(Key(column="ID"),),
            inputs=tuple(
                Input(column=c.upper(), feature=c, type=kind, iso=sql_type == "VARCHAR(30)")
                for c, (kind, sql_type, _) in columns.items()
            ),
            outputs=(Output(column="SEEN", type="string"),),
            loader=MlflowLoader(),
            files=files,
            batch_rows=BATCH,
            **options,
        )
        parameters = ", ".join(f"{c.upper()} {column[1]}" for c, column in columns.items())
        reason = ", REASON VARCHAR(2000)" if spec.on_error == "column" else ""
        udf = udf_runner.create(
            f"CREATE OR REPLACE PYTHON3 SET SCRIPT SCORE(ID {key}, {parameters})\n"
            f"EMITS (ID {key}, SEEN VARCHAR(2000000){reason}) AS\n{udf_source(spec)}\n/"
        )
        return udf.run(rows, packet_rows=7).rows

    return score


def rows_of(columns, null_at=()):
    """Return a table with keys that a float cannot represent, and NULLs in some rows."""
    table = zip(*(values for _, _, values in columns.values()), strict=True)
    width = len(columns)
    keys = [*IDS, *range(2**53 + 1, 2**53 + ROWS)]
    return [
        (key, *([None] * width if i in null_at else row))
        for i, (key, row) in enumerate(zip(keys, table, strict=False))
    ]


def predicted_by_pyfunc(folder, columns, rows):
    """Return the predictions of pyfunc in this process, for the same batches."""
    model = mlflow.pyfunc.load_model(folder)
    seen = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        frame = {}
        for position, (name, (kind, _, _)) in enumerate(columns.items(), start=1):
            values = [row[position] for row in batch]
            if kind in {"float", "double"}:
                values = [None if value is None else float(value) for value in values]
            if kind == "datetime":
                frame[name] = pd.to_datetime(pd.Series(values)).astype("datetime64[ns]")
            elif kind == "string" or None in values:
                frame[name] = pd.Series(values, dtype=FLOATS.get(kind, "object"))
            else:
                frame[name] = pd.Series(values, dtype=DTYPES[kind])
        seen += model.predict(pd.DataFrame(frame))
    return seen


def test_each_type_scores_as_pyfunc_does(models, score):
    """All types are scored as by pyfunc, from each suitable SQL type, over several batches."""
    rows = rows_of(COLUMNS)
    scored = score("all", COLUMNS, rows)
    assert [row[0] for row in scored] == [row[0] for row in rows]
    assert [row[1] for row in scored] == predicted_by_pyfunc(models["all"][0], COLUMNS, rows)


def test_nulls_score_as_pyfunc_does(models, score):
    """NULLs are scored as by pyfunc, also in a batch of NULLs only, and change no key."""
    rows = rows_of(NULLABLE, {*range(BATCH, 2 * BATCH), ROWS - 2})
    scored = score("nullable", NULLABLE, rows)
    assert [row[0] for row in scored] == [row[0] for row in rows]
    assert [row[1] for row in scored] == predicted_by_pyfunc(models["nullable"][0], NULLABLE, rows)


def test_null_in_whole_numbers_is_refused(score):
    """The error for the SQL user names the column, the row and the required type."""
    rows = rows_of(COLUMNS, {12})
    with pytest.raises(UdfError) as error:
        score("all", COLUMNS, rows)
    first = next(name for name, (kind, _, _) in COLUMNS.items() if kind == "integer")
    assert str(error.value).splitlines()[-1].strip() == (
        f"ScoringError: column {first.upper()}: NULL in row 13 (ID {rows[12][0]}) is not allowed; "
        "the model's signature requires integer"
    )
    assert "Traceback" not in str(error.value)


def test_a_reason_for_each_row_that_is_refused(models, score):
    """With a column for reasons, all other rows are scored, also in the same batch."""
    rows, reasons = [list(row) for row in rows_of(COLUMNS)], {}
    for row, (name, (kind, sql_type, _)) in enumerate(COLUMNS.items()):
        # in a batch with a NULL, a DECIMAL(18,0) arrives as floats: all its rows are refused
        if kind in WHOLE and sql_type != "DECIMAL(18,0)":
            rows[row][1 + row] = None
            reasons[row] = f"column {name.upper()}: NULL in row {row + 1} (ID {rows[row][0]}) is"
    scored = score("all", COLUMNS, [tuple(row) for row in rows], on_error="column")
    assert [row[0] for row in scored] == [row[0] for row in rows]
    good = [row for row in range(ROWS) if row not in reasons]
    expected = predicted_by_pyfunc(models["all"][0], COLUMNS, rows_of(COLUMNS))
    assert [scored[row][1:] for row in good] == [(expected[row], None) for row in good]
    for row, reason in reasons.items():
        assert scored[row][1] is None
        assert scored[row][2].startswith(reason)


def test_ids_of_18_digits_beside_a_null_are_refused(score):
    """Ids that have lost digits because of a NULL are refused; the message names an exact type."""
    rows = [
        (key, *row[1:]) for key, row in zip([2**53 + 1, None], rows_of(NULLABLE)[:2], strict=True)
    ]
    with pytest.raises(UdfError, match=r"column ID: .* declare the column as DECIMAL\(36,0\)"):
        score("nullable", NULLABLE, rows, key="DECIMAL(18,0)")
