"""Conversion of predictions to the rows that a script emits."""

# ruff: noqa: DTZ001 -- a TIMESTAMP has no time zone

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_plugin.scoring.spec import Input, Key, Output
from mlflow_bucketfs_plugin.scoring.udf_code import ScoringError
from scipy.sparse import csr_matrix

LOST = "is a float of 2^53 or more, which may have lost digits"
X = Input(column="X", feature="x", type="double")


@pytest.fixture(scope="session")
def emit(score, make_spec):
    """Return a function that returns the rows emitted for a model's prediction."""

    def emit(prediction, *outputs, rows=2, **options):
        spec = make_spec([X], outputs, **options)
        return score(spec, pd.DataFrame({"X": np.arange(float(rows))}), lambda _: prediction)

    return emit


def outputs(*types, fields=None):
    """Return outputs P0, P1, … of these types."""
    names = fields or [None] * len(types)
    return [
        Output(column=f"P{n}", type=t, field=f)
        for n, (t, f) in enumerate(zip(types, names, strict=True))
    ]


@pytest.mark.parametrize(
    ("kind", "prediction", "emitted"),
    [
        ("long", np.array([2**53 + 1, -1]), [2**53 + 1, -1]),
        ("long", np.array([1.0, np.nan]), [1, None]),
        ("integer", pd.Series([1, None], dtype="Int64"), [1, None]),
        ("uint64", np.array([2**64 - 1, 0], dtype="uint64"), [2**64 - 1, 0]),
        ("long", np.array([200, 7], dtype="uint8"), [200, 7]),
        ("double", np.array([0.1, np.inf]), [0.1, None]),
        ("float", np.array([0.1, 2], dtype="float32"), [float(np.float32(0.1)), 2.0]),
        ("double", [np.float32(0.5), Decimal("0.25")], [0.5, 0.25]),
        ("double", pd.Series([1.5, None], dtype="Float64"), [1.5, None]),
        ("double", [None, -math.inf], [None, None]),
        ("boolean", np.array([True, False]), [True, False]),
        ("boolean", [np.True_, None], [True, None]),
        ("string", np.array(["yes", "no"]), ["yes", "no"]),
        ("string", pd.Series(["a", None], dtype="category"), ["a", None]),
        ("string", np.array(["a", np.nan], dtype=object), ["a", None]),
        ("datetime", np.array(["2026-01-31", "NaT"], "M8[D]"), [pd.Timestamp("2026-01-31"), None]),
        ("datetime", [date(2026, 1, 31), datetime(2026, 1, 31, 1)],
         [pd.Timestamp("2026-01-31"), pd.Timestamp("2026-01-31 01:00")]),
        ("decimal", [0.125, Decimal("9" * 30 + ".001")],
         [Decimal("0.12"), Decimal("9" * 30 + ".00")]),
        ("decimal", [7, None], [Decimal("7.00"), None]),
        ("json", [[np.float32(0.5), np.nan], {"ä": np.int64(1)}], ["[0.5, null]", '{"ä": 1}']),
        ("json", np.array([[1.0, 2.0], [3.0, 4.0]]), ["[1.0, 2.0]", "[3.0, 4.0]"]),
        ("json", [["a\0b"], None], ['["a\\u0000b"]', None]),
    ],
)  # fmt: skip
def test_predictions_become_plain_values(emit, kind, prediction, emitted):
    """Each emitted value is None or of a type that Exasol's client does not change."""
    output = Output(column="P", type=kind, scale=2)
    rows = emit(prediction, output)
    assert rows == [(value,) for value in emitted]
    assert [type(value) for (value,) in rows] == [type(value) for value in emitted]


@pytest.mark.parametrize(
    ("kind", "prediction", "problem"),
    [
        ("long", np.array([1.0, 1.5]), "1.5, predicted for row 2, is not a whole number"),
        ("long", np.array([1.0, 1e17]), "1e+17, predicted for row 2, is a float of 2^53 or more"),
        ("integer", np.array([0, 2**31]), "2147483648, predicted for row 2, is out of range"),
        ("long", ["yes", "no"], "'yes', predicted for row 1, is not a number"),
        ("long", np.array([True, False]), "True, predicted for row 1, is not a number"),
        ("double", np.array([True, False]), "True, predicted for row 1, is not a number"),
        ("double", ["0.5", 1], "'0.5', predicted for row 1, is not a number"),
        ("boolean", [1, 0], "1, predicted for row 1, is not true or false"),
        ("string", [1, "a"], "1, predicted for row 1, is not text"),
        ("string", ["a", "b\0c"], r"'b\x00c', predicted for row 2, has a NUL character"),
        ("string", [b"a", "b"], "b'a', predicted for row 1, is not text"),
        ("string", [["a"], ["b"]], "['a'], predicted for row 1, is not text"),
        ("datetime", ["2026", None], "'2026', predicted for row 1, is not a date or time"),
        ("datetime", [date(3000, 1, 1), None], "3000-01-01, predicted for row 1, is not between"),
        (
            "datetime",
            pd.Series(pd.date_range("2026", periods=2, tz="UTC")),
            "2026-01-01 00:00:00+00:00, predicted for row 1, has a time zone",
        ),
        ("decimal", [10**40, 1], f"1{'0' * 38}…, predicted for row 1, is out of range"),
    ],
)  # fmt: skip
def test_another_type_is_refused_and_never_changed(emit, kind, prediction, problem):
    """Predictions of another type, which Exasol's client might truncate or wrap, are refused."""
    if isinstance(prediction, list) and isinstance(prediction[0], list):
        prediction = pd.Series(prediction)
    with pytest.raises(ScoringError) as error:
        emit(prediction, Output(column="P", type=kind))
    assert str(error.value).startswith(f"column P: {problem}")
    assert str(error.value).endswith("; make the script again with another --output")


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1), st.data())
def test_whole_numbers_beside_floats_keep_their_digits(emit, numbers, data):
    """Whole numbers keep all digits in a batch with floats."""
    floats = data.draw(st.lists(st.floats(), min_size=len(numbers), max_size=len(numbers)))
    wanted = [
        (n if -(2**63) <= n < 2**63 else None, f if math.isfinite(f) else None)
        for n, f in zip(numbers, floats, strict=True)
    ]
    prediction = {"n": np.array(numbers, dtype=object), "f": np.array(floats)}
    options = {"rows": len(numbers), "on_error": "column"}
    rows = emit(prediction, *outputs("long", "double"), **options)
    assert [row[:2] for row in rows if row[2] is None] == [w for w in wanted if w[0] is not None]
    assert [row[:2] for row in rows if row[2]] == [(None, None)] * sum(w[0] is None for w in wanted)


MATRIX = [[1, 0.5], [2, 0.25]]


@pytest.mark.parametrize(
    "prediction",
    [
        np.array(MATRIX),
        MATRIX,
        [tuple(row) for row in MATRIX],
        [np.array(row) for row in MATRIX],
        csr_matrix(MATRIX),
        pd.DataFrame(MATRIX, columns=["a", "b"]),
        {"a": np.array([1, 2]), "b": np.array([[0.5], [0.25]])},
        [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}],
    ],
)  # fmt: skip
def test_several_columns_are_emitted_as_columns(emit, prediction):
    """Matrices, lists of rows or records, frames and dictionaries are emitted as columns."""
    assert emit(prediction, *outputs("long", "double")) == [(1, 0.5), (2, 0.25)]
    if isinstance(prediction, (pd.DataFrame, dict)) or isinstance(prediction[0], dict):
        by_name = outputs("double", "long", fields=["b", "a"])
        assert emit(prediction, *by_name) == [(0.5, 1), (0.25, 2)]


def test_a_column_may_be_a_matrix_of_one_column(emit):
    """A prediction of shape (n, 1), or a scalar for one row, is emitted as one column."""
    assert emit(np.array([[1.5], [2.5]]), *outputs("double")) == [(1.5,), (2.5,)]
    assert emit("yes", *outputs("string"), rows=1) == [("yes",)]
    assert emit(np.float64(1.5), *outputs("double"), rows=1) == [(1.5,)]


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (np.zeros((2, 3)), "the model returned 3 columns and the script emits 2; make it again"),
        (np.zeros((3, 2)), "the model returned 3 rows for 2; a script can only call a model"),
        (np.zeros((2, 2, 2)), "the model returned 1 columns and the script emits 2"),
        (pd.DataFrame({"a": [1, 2]}), "the model returned no column b, but a; make the"),
        (None, "the model returned 1 columns and the script emits 2"),
    ],
)  # fmt: skip
def test_another_shape_is_refused(emit, prediction, sentence):
    """A prediction whose shape does not match the script is an error in one sentence."""
    fields = ["a", "b"] if isinstance(prediction, pd.DataFrame) else None
    with pytest.raises(ScoringError) as error:
        emit(prediction, *outputs("double", "double", fields=fields))
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([2**53 + 1, -(2**53) - 1]),
        pd.Series([Decimal(10**36 - 1), None], dtype=object),
        pd.Series([1.0, None]),
        pd.Series(["a", None]),
        pd.Series([True, False]),
        pd.Series([date(2026, 1, 31), None], dtype=object),
        pd.Series([pd.Timestamp("2026-01-31 01:02:03.456789"), None]),
    ],
)
def test_keys_pass_through_exactly(score, make_spec, values):
    """A key is emitted with the value and type that it has in the table."""
    spec = make_spec([X], outputs("double"), keys=(Key(column="K"), Key(column="L", whole=False)))
    frame = pd.DataFrame({"K": values, "L": [0.5, None], "X": [1.0, 2.0]})
    wanted = [None if pd.isna(value) else value for value in values]
    rows = score(spec, frame, lambda _: np.array([0.0, 1.0]))
    assert rows == [(wanted[0], 0.5, 0.0), (wanted[1], None, 1.0)]
    assert type(rows[0][0]) is (int if isinstance(wanted[0], float) else type(wanted[0]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            [2.0**53, None],
            f"{2.0**53} in row 1 (K {2.0**53}) {LOST}; declare the column as DECIMAL(36,0)",
        ),
        (
            ["a\0b", "c"],
            r"'a\x00b' in row 1 (K 'a\x00b') has a NUL character; replace it in the query",
        ),
    ],
)
def test_a_key_that_would_change_is_refused(score, make_spec, values, sentence):
    """A key that has lost digits, or text that would be truncated, is refused."""
    frame = pd.DataFrame({"K": values, "X": [1.0, 2.0]})
    spec = make_spec([X], outputs("double"), keys=(Key(column="K"),))
    with pytest.raises(ScoringError) as error:
        score(spec, frame, lambda _: np.zeros(2))
    assert str(error.value) == f"column K: {sentence}"
    spec = make_spec([X], outputs("double"), keys=(Key(column="K"),), on_error="column")
    refused, passed = score(spec, frame, lambda x: np.zeros(len(x)))
    assert refused == (None, None, str(error.value))
    assert passed == (values[1], 0.0, None)


def fail(_):
    """Raise an error, as a model does."""
    raise ValueError("Input X contains NaN.\nsecond line")


def test_a_failing_model_is_one_sentence(score, make_spec):
    """The message has the first line of the model's error, and NULLs as the likely cause."""
    for value, remedy in (
        (1.0, "compare the values with those"),
        (None, "it may not accept the NULLs"),
    ):
        frame = pd.DataFrame({"X": [0.0, value]})
        with pytest.raises(ScoringError) as error:
            score(make_spec([X], outputs("double")), frame, fail)
        start = "the model failed: ValueError: Input X contains NaN; "
        assert str(error.value).startswith(start + remedy)


def test_a_model_that_fails_without_a_message(score, make_spec):
    """An error without a message is shown as its type alone."""

    def predict(_):
        raise AssertionError

    with pytest.raises(ScoringError, match=r"^the model failed: AssertionError; compare "):
        score(make_spec([X], outputs("double")), pd.DataFrame({"X": [1.0]}), predict)


def test_a_failing_model_is_the_reason_of_each_row(score, make_spec):
    """The model's error is the reason of each row that was passed to it; others keep their own."""
    spec = make_spec([X], outputs("double"), keys=(Key(column="K"),), on_error="column")
    frame = pd.DataFrame({"K": [1, 2, 3], "X": ["a", 1.0, 2.0]})
    rows = score(spec, frame, fail)
    assert [row[:2] for row in rows] == [(1, None), (2, None), (3, None)]
    assert rows[0][2].startswith("column X: 'a' in row 1 (K 1) is not a number")
    assert rows[1][2] == rows[2][2]
    assert rows[1][2].startswith("the model failed: ValueError: Input X contains NaN; ")


def test_a_bad_prediction_is_the_reason_of_its_row(score, make_spec):
    """Only the rows with an invalid prediction are refused, each with all its columns."""
    spec = make_spec([X], outputs("string", "long"), on_error="column")
    prediction = pd.DataFrame({"a": ["ok", "b\0", "c"], "b": [1, 2, 2.5]})
    rows = score(spec, pd.DataFrame({"X": [1.0, 2.0, 3.0]}), lambda _: prediction)
    assert rows[0] == ("ok", 1, None)
    assert [row[:2] for row in rows[1:]] == [(None, None)] * 2
    assert [row[2].split(",")[0] for row in rows[1:]] == [r"column P0: 'b\x00'", "column P1: 2.5"]


def test_no_empty_batch_reaches_the_model(score, make_spec):
    """The model is not called if all rows of a batch are refused."""
    spec = make_spec([X], outputs("double"), on_error="column")
    rows = score(spec, pd.DataFrame({"X": ["a", "b"]}), None)
    assert [row[0] for row in rows] == [None, None]


def test_a_message_of_mlflow_is_shortened_to_its_reason(score, make_spec):
    """Of MLflow's error about the schema, only the reason is shown, without the rows."""

    def refuse(features):
        raise ValueError(f"Failed to enforce schema of data '{features}'. Error: no column y")

    with pytest.raises(ScoringError, match=r"^the model failed: ValueError: no column y; compare"):
        score(make_spec([X], outputs("double")), pd.DataFrame({"X": [1.0] * 99}), refuse)


def test_json_output_is_json(emit):
    """A JSON output is valid JSON, with infinity as null."""
    value = {"a": [np.inf, {"b": np.array([1, 2])}], 5: pd.Timestamp("2026-01-31")}
    ((text,), _) = emit([value, {}], Output(column="P", type="json"))
    assert json.loads(text) == {"a": [None, {"b": [1, 2]}], "5": "2026-01-31 00:00:00"}
