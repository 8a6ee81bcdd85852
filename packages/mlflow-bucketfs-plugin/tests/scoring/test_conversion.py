"""Conversion of features to the types of the signature, and the errors for refused values."""

# ruff: noqa: DTZ001 -- a TIMESTAMP has no time zone

from __future__ import annotations

import json
import math
import struct
from datetime import date, datetime
from decimal import Decimal

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property
from mlflow_bucketfs_plugin.scoring.spec import Input, Key, Output, Tensor
from mlflow_bucketfs_plugin.scoring.udf_code import ScoringError

RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
EDGES = [0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63)]
DIGITS = 10**36 - 1

whole = st.sampled_from(EDGES) | st.integers(-DIGITS, DIGITS)
VALUES = {
    "INTEGER": whole.map(lambda v: v % 10**18),
    "DECIMAL": whole.map(Decimal),
    "DECIMAL(36,4)": whole.map(lambda v: Decimal(v).scaleb(-4)),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False) | whole.map(float),
    "BOOLEAN": st.booleans(),
    "VARCHAR": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9) | st.just("12"),
    "DATE": st.dates(),
    "TIMESTAMP": st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
}
WHOLE = {"INTEGER": int, "DECIMAL": Decimal, "DECIMAL(36,4)": Decimal, "DOUBLE": float}
NUMBERS = (int, float, Decimal)


class Refusal(Exception):  # noqa: N818
    """Raised by the oracle for a value that does not fit the type."""


def expect(kind, sql_type, value, has_null):  # noqa: C901 -- a case for each type
    """Return the expected feature for a value, by exact arithmetic, as a Python value."""
    if kind in RANGES:
        low, high = RANGES[kind]
        if isinstance(value, bool) or not isinstance(value, NUMBERS) or value != int(value):
            raise Refusal
        is_float = sql_type == "DOUBLE" or (sql_type == "INTEGER" and has_null)
        if not low <= value <= high or (is_float and abs(value) >= 2**53):
            raise Refusal
        return int(value)
    if value is None:
        return None
    required = {"boolean": bool, "string": str, "datetime": date}.get(kind, NUMBERS)
    if not isinstance(value, required) or (isinstance(value, bool) and kind != "boolean"):
        raise Refusal
    if kind == "double":
        return float(value)
    if kind == "float":
        try:
            return struct.unpack("<f", struct.pack("<f", float(value)))[0]
        except OverflowError:
            raise Refusal from None
    if kind == "datetime":
        moment = datetime(value.year, value.month, value.day) if type(value) is date else value
        if not datetime(1677, 9, 22) <= moment <= datetime(2262, 4, 11):
            raise Refusal
        return moment
    return value


@st.composite
def columns(draw, kinds=(*RANGES, "float", "double", "boolean", "string", "datetime")):
    """Draw a signature, and a table with columns of suitable and of unsuitable types."""
    rows = draw(st.integers(1, 6))
    suitable = {"boolean": "BOOLEAN", "string": "VARCHAR", "datetime": "TIMESTAMP"}
    table = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4)):
        likely = (
            st.just(suitable[kind])
            if kind in suitable
            else st.sampled_from(["INTEGER", "DECIMAL", "DOUBLE"])
        )
        sql_type = draw(likely | st.sampled_from(sorted(VALUES)))
        value = VALUES[sql_type]
        if kind in RANGES and sql_type in WHOLE and draw(st.booleans()):
            value = st.sampled_from(EDGES[:7]).map(WHOLE[sql_type])
        nullable = draw(st.sampled_from([value, value, value | st.none()]))
        values = draw(st.lists(nullable, min_size=rows, max_size=rows))
        table.append((kind, sql_type, values))
    return rows, table


@given(columns())
def test_rows_are_converted_exactly_or_refused(delivered, score, make_spec, drawn):  # noqa: C901
    """Each row is converted exactly, or refused with a reason that names a column."""
    rows, table = drawn
    good, wanted = [], []
    wrong = {}
    for row in range(rows):
        line = []
        for position, (kind, sql_type, values) in enumerate(table):
            try:
                line.append(expect(kind, sql_type, values[row], None in values))
            except Refusal:  # noqa: PERF203
                wrong.setdefault(row, []).append(f"column C{position}: ")
        if row not in wrong:
            good.append(row)
            wanted.append(line)
    inputs = [Input(column=f"C{n}", feature=f"f{n}", type=c[0]) for n, c in enumerate(table)]
    frame = pd.DataFrame({f"C{n}": delivered(c[1], c[2]) for n, c in enumerate(table)})
    seen = []

    def model(features):
        seen.append(features)
        return np.arange(len(features))

    output = [Output(column="P", type="long")]
    scored = score(make_spec(inputs, output, on_error="column"), frame, model)
    assert [row for row in range(rows) if scored[row][1] is None] == good
    for row, prefixes in wrong.items():
        assert scored[row][0] is None
        assert scored[row][1].startswith(tuple(prefixes))
        assert f" row {row + 1} " in scored[row][1]
    if good:
        (features,) = seen
        assert list(features) == [f"f{n}" for n in range(len(table))]
        for position, (kind, _, values) in enumerate(table):
            dtype = {
                "integer": "int32",
                "long": "int64",
                "float": "float32",
                "double": "float64",
                "datetime": "datetime64[ns]",
                "boolean": "bool",
                "string": pd.Series(["text"]).dtype,
            }.get(kind, "object")
            column = features[f"f{position}"]
            if kind == "boolean" and any(values[row] is None for row in good):
                dtype = "object"
            assert column.dtype == dtype
            got = [None if pd.isna(v) else v for v in column.tolist()]
            assert got == [line[position] for line in wanted]
    # Without a column for reasons, the query fails for the same rows only
    if wrong:
        with pytest.raises(ScoringError, match="column C"):
            score(make_spec(inputs, output), frame, model)
    else:
        assert score(make_spec(inputs, output), frame, model) == [row[:1] for row in scored]


LOST = "is a float of 2^53 or more, which may have lost digits"


@pytest.mark.parametrize(
    ("kind", "sql_type", "values", "problem"),
    [
        ("long", "DOUBLE", [1.0, 2.0, 1.5], "1.5 in row 3 (ID 3) is not a whole number"),
        ("integer", "INTEGER", [1, 2**31], "2147483648 in row 2 (ID 2) is out of range"),
        ("long", "DECIMAL", [Decimal(2**63)], f"{2**63} in row 1 (ID 1) is out of range"),
        ("long", "DOUBLE", [1.0, 2.0**53], f"9007199254740992.0 in row 2 (ID 2) {LOST}"),
        ("long", "INTEGER", [1, None], "NULL in row 2 (ID 2) is not allowed"),
        ("integer", "VARCHAR", ["7"], "'7' in row 1 (ID 1) is not a number"),
        ("long", "BOOLEAN", [True], "True in row 1 (ID 1) is not a number"),
        ("long", "DOUBLE", [math.inf], "inf in row 1 (ID 1) is not a whole number"),
        ("double", "VARCHAR", ["1.5"], "'1.5' in row 1 (ID 1) is not a number"),
        ("float", "DOUBLE", [1.0, 1e300], "1e+300 in row 2 (ID 2) is out of range"),
        ("boolean", "INTEGER", [1], "1 in row 1 (ID 1) is not true or false"),
        ("string", "INTEGER", [5], "5 in row 1 (ID 1) is not text"),
        ("datetime", "VARCHAR", ["2026"], "'2026' in row 1 (ID 1) is not a date or time"),
        (
            "datetime",
            "DATE",
            [date(1, 1, 1)],
            "0001-01-01 in row 1 (ID 1) is not between the years 1678 and 2261",
        ),
    ],
)
def test_a_refused_value_is_named_in_one_sentence(  # noqa: PLR0917
    score, make_spec, delivered, kind, sql_type, values, problem
):
    """The error names the column, the value, the row with its key, and the remedy."""
    spec = make_spec([Input(column="AGE", feature="age", type=kind)], [], keys=(Key(column="ID"),))
    frame = pd.DataFrame({"ID": range(1, len(values) + 1), "AGE": delivered(sql_type, values)})
    remedy = f"the model's signature requires {kind}"
    if LOST in problem:
        remedy = "declare the column as DECIMAL(36,0)"
    with pytest.raises(ScoringError) as error:
        score(spec, frame, None)
    assert str(error.value) == f"column AGE: {problem}; {remedy}"


def test_a_long_name_leaves_room_for_the_remedy(score, make_spec):
    """A message has at most 300 characters; its key is left out before its end is truncated."""
    spec = make_spec(
        [Input(column="Ä" * 128, feature="a", type="string")],
        [],
        keys=(Key(column="K" * 128),),
    )
    frame = pd.DataFrame({"K": ["k" * 1000], "A": [date(2026, 1, 31)]})
    with pytest.raises(ScoringError) as error:
        score(spec, frame, None, rows_before=10**12)
    assert len(str(error.value)) <= 300
    assert str(error.value).endswith(
        "in row 1000000000001 is not text; the model's signature requires string"
    )


def captured(score, spec, frame):
    """Return the input of a model for a batch."""
    seen = []

    def model(features):
        seen.append(features)
        return np.zeros(len(frame))

    score(spec, frame, model)
    return seen[0]


PREDICTION = Output(column="P", type="double")


@pytest.mark.filterwarnings("ignore:The 'mode.copy_on_write' option")  # always on in pandas 3
@pytest.mark.parametrize(
    ("output", "values"),
    [("double", [1.5, np.nan, np.inf]), ("double", [1, 2, 3]), ("long", [1.0, np.nan, 3.0])],
)
def test_predictions_may_be_read_only(score, make_spec, output, values):
    """Arrays of a series are not changed: with pandas 3, or copy on write, they are read-only."""
    spec = make_spec([], [Output(column="P", type=output)])
    with pd.option_context("mode.copy_on_write", True):
        rows = score(spec, pd.DataFrame(index=range(3)), lambda _: pd.Series(values))
    finite = [None if not np.isfinite(value) else value for value in values]
    assert rows == [(value,) for value in finite]


@given(st.lists(st.datetimes(datetime(1678, 1, 1), datetime(2261, 1, 1)) | st.none(), min_size=1))
def test_text_in_iso_format_is_a_time(score, make_spec, moments):
    """A datetime as ISO text is converted to the same time, to the microsecond; NULL stays NULL."""
    spec = make_spec(
        [Input(column="SINCE", feature="since", type="datetime", iso=True)], [PREDICTION]
    )
    texts = [moment and str(moment) for moment in moments]
    column = captured(score, spec, pd.DataFrame({"SINCE": pd.Series(texts, dtype=object)}))["since"]
    assert column.dtype == "datetime64[ns]"
    assert [None if pd.isna(v) else v for v in column] == moments


@pytest.mark.parametrize(
    "text", ["now", "NaT", "2026-13-01", "2026", "31.01.2026", "2026-01-31+01:00"]
)
def test_other_text_is_no_time(score, make_spec, text):
    """Text in other formats that pandas parses, or with an invalid date, is refused."""
    spec = make_spec([Input(column="SINCE", feature="since", type="datetime", iso=True)], [])
    with pytest.raises(ScoringError, match=r"^column SINCE: '.*' in row 2 is not"):
        score(spec, pd.DataFrame({"SINCE": ["2026-01-31", text]}), None)


def test_null_becomes_the_empty_string_with_null_as_empty(score, make_spec):
    """With ``null_as_empty``, the model gets the empty string for NULL."""
    spec = make_spec(
        [Input(column="T", feature="t", type="string", null_as_empty=True)], [PREDICTION]
    )
    for values, wanted in (["a", None], ["a", ""]), ([None, None], ["", ""]):
        frame = pd.DataFrame({"T": pd.Series(values, dtype=object)})
        assert captured(score, spec, frame)["t"].tolist() == wanted


def test_features_without_names_have_their_positions(score, make_spec):
    """For a signature without names, the frame's labels are positions, without the keys."""
    inputs = [Input(column=c, feature=None, type="double") for c in ("A", "B")]
    spec = make_spec(inputs, [PREDICTION], keys=(Key(column="ID"),))
    frame = captured(score, spec, pd.DataFrame({"ID": [1], "A": [2.0], "B": [3.0]}))
    assert frame.to_dict("list") == {0: [2.0], 1: [3.0]}


@pytest.mark.parametrize(
    ("dtype", "kind", "values"),
    [
        ("float32", "float", [1.5, 2.0]),
        ("float16", "float", [1.5, 2.0]),
        ("int8", "integer", [1, -128]),
        ("uint64", "uint64", [0, 2**64 - 1]),
        ("bool", "boolean", [True, False]),
        ("str", "string", ["a", "b"]),
    ],
)
def test_a_tensor_is_an_array_of_its_dtype(score, make_spec, dtype, kind, values):
    """A tensor is a vector, a matrix if it has columns, and in a dictionary if it has a name."""
    inputs = [Input(column=c, feature=None, type=kind) for c in ("A", "B")]
    frame = pd.DataFrame({"A": values, "B": values}, dtype=object)
    one, two = Tensor(dtype=dtype, columns=None), Tensor(dtype=dtype, columns=2)
    array = captured(score, make_spec(inputs[:1], [PREDICTION], tensor=one), frame)
    assert array.dtype == np.array(values, dtype).dtype
    assert array.tolist() == values
    matrix = captured(score, make_spec(inputs, [PREDICTION], tensor=two), frame)
    assert matrix.dtype == array.dtype
    assert matrix.T.tolist() == [values, values]
    named = Tensor(dtype=dtype, columns=2, name="x")
    assert list(captured(score, make_spec(inputs, [PREDICTION], tensor=named), frame)) == ["x"]


@pytest.mark.parametrize(
    ("dtype", "kind", "value", "problem"),
    [
        ("int8", "integer", None, "NULL in row 1 is not allowed"),
        ("bool", "boolean", None, "NULL in row 1 is not allowed"),
        ("str", "string", None, "NULL in row 1 is not allowed"),
        ("int8", "integer", 128, "128 in row 1 is out of range"),
        ("float16", "float", 70000.0, "70000.0 in row 1 is out of range"),
    ],
)
def test_a_tensor_refuses_unsuitable_values(score, make_spec, dtype, kind, value, problem):  # noqa: PLR0917
    """Values that NumPy would convert to True, 'None' or -128 without an error are refused."""
    tensor = Tensor(dtype=dtype, columns=None)
    spec = make_spec([Input(column="A", feature=None, type=kind)], [], tensor=tensor)
    with pytest.raises(ScoringError, match=f"column A: {problem}"):
        score(spec, pd.DataFrame({"A": pd.Series([value], dtype=object)}), None)


TIME = Property("t", DataType.datetime, required=False)
NESTED = Schema(
    [
        ColSpec(Array(DataType.double), "d"),
        ColSpec(Array(DataType.float), "f"),
        ColSpec(Map(Array(DataType.integer)), "m"),
        ColSpec(Object([Property("n", DataType.long), TIME]), "o"),
    ]
)
SQL_TYPES = {
    "integer": "INTEGER",
    "long": "DECIMAL",
    "float": "INTEGER",
    "double": "DECIMAL(36,4)",
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "datetime": "TIMESTAMP",
}
SUITABLE = {
    "integer": st.integers(*RANGES["integer"]),
    "long": st.integers(*RANGES["long"]).map(Decimal),
    "datetime": st.datetimes(datetime(1678, 1, 1), datetime(2261, 1, 1)),
}


class Echo(mlflow.pyfunc.PythonModel):
    """A model that returns its input as text."""

    def predict(self, context, model_input: pd.DataFrame, params=None):  # noqa: ARG002
        """Return each row."""
        return [repr(row.tolist()) for _, row in model_input.astype(object).iterrows()]


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """Return models that return their input as text, for scalar and for nested features."""

    def load(schema):
        path = tmp_path_factory.mktemp("model") / "m"
        signature = ModelSignature(inputs=schema)
        mlflow.pyfunc.save_model(
            path, python_model=Echo(), signature=signature, pip_requirements=["mlflow"]
        )
        return mlflow.pyfunc.load_model(path)

    return {
        "scalars": load(Schema([ColSpec(kind, kind) for kind in SQL_TYPES])),
        "nested": load(NESTED),
    }


@given(data=st.data())
def test_mlflow_takes_every_converted_batch(delivered, score, make_spec, echo, data):
    """MLflow accepts converted batches, with and without NULLs, and does not change them."""
    rows, frame, inputs = data.draw(st.integers(1, 4)), {}, []
    for kind, sql_type in SQL_TYPES.items():
        value = SUITABLE.get(kind, VALUES[sql_type])
        if kind not in RANGES:
            value = value | st.none()
        frame[kind] = delivered(sql_type, data.draw(st.lists(value, min_size=rows, max_size=rows)))
        inputs.append(Input(column=kind, feature=kind, type=kind))
    spec = make_spec(inputs, [Output(column="ROW", type="string")])
    seen = []

    def model(features):
        seen.append(Echo().predict(None, features))
        return echo["scalars"].predict(features)

    scored = score(spec, pd.DataFrame(frame), model)
    assert [row[0] for row in scored] == seen[0]


def nested_inputs():
    """Return the inputs of a spec for the nested signature."""
    types = json.loads(NESTED.to_json())
    return [
        Input(column=t["name"].upper(), feature=t["name"], type="json", schema=t) for t in types
    ]


def test_json_becomes_what_the_signature_describes(score, make_spec, echo):
    """Numbers and times in JSON are converted to the signature's types, and MLflow accepts them."""
    spec = make_spec(nested_inputs(), [Output(column="ROW", type="string")])
    values = ["[1, 2.5]", "[1, 2.5]", '{"a": [1], "b": []}', '{"n": 1, "t": "2026-01-31 12:00"}']
    frame = pd.DataFrame([values, values], columns=["D", "F", "M", "O"])
    scored = score(spec, frame, echo["nested"].predict)
    assert len(scored) == 2
    last = {"n": np.int64(1), "t": pd.Timestamp("2026-01-31 12:00:00")}
    assert scored[0][0] == repr([[1.0, 2.5], [1.0, 2.5], {"a": [1], "b": []}, last])


NOT_THE_TYPE = "column M: .* in row 1 is not JSON of the required type"
NOT_A_MAP = "the model failed: MlflowException: Expected data to be a dict, got"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1", NOT_THE_TYPE),
        ('{"a": [99999999999]}', NOT_THE_TYPE),
        ("12345678901", f"{NOT_A_MAP} int"),
        ("[2]", f"{NOT_A_MAP} list"),
        ('"2026"', f"{NOT_A_MAP} str"),
    ],
)
def test_json_of_another_type_is_refused(score, make_spec, echo, value, message):
    """Text that is not JSON, or not of the type, is an error, from the script or from MLflow."""
    spec = make_spec(nested_inputs(), [Output(column="ROW", type="string")])
    frame = pd.DataFrame([["[1]", "[1]", value, '{"n": 1}']], columns=["D", "F", "M", "O"])
    with pytest.raises(ScoringError, match=message):
        score(spec, frame, echo["nested"].predict)


def test_required_json_is_not_null(score, make_spec):
    """NULL is refused in a required JSON column, as in MLflow, and accepted in an optional one."""
    nested = {"type": "array", "items": {"type": "double"}}
    frame = pd.DataFrame({"A": pd.Series(["[1]", None], dtype=object)})
    inputs = [Input(column="A", feature="a", type="json", schema=nested)]
    with pytest.raises(ScoringError, match="column A: NULL in row 2 is not allowed"):
        score(make_spec(inputs, []), frame, None)
    inputs = [Input(column="A", feature="a", type="json", schema=nested, required=False)]
    assert captured(score, make_spec(inputs, [PREDICTION]), frame)["a"].tolist() == [[1.0], None]
