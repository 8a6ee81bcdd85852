"""Conversion of a signature to parameters, outputs and params."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.models import infer_signature
from mlflow.types.schema import (
    AnyType,
    Array,
    ColSpec,
    Map,
    Object,
    ParamSchema,
    ParamSpec,
    Property,
    Schema,
    TensorSpec,
)
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.signature import (
    model_params,
    outputs,
    parameters,
    parse_keys,
)
from mlflow_bucketfs_plugin.scoring.spec import Input, Tensor


def inputs_of(schema, **options):
    """Make parameters from a schema of MLflow, by its JSON."""
    given = {"types": {}, "renames": {}, **options}
    return parameters(json.loads(schema.to_json()), **given)


def outputs_of(schema, *named, taken=()):
    """Make outputs from a schema of MLflow; return names, types and columns' types."""
    made = outputs(schema and json.loads(schema.to_json()), named=named, taken=taken)
    return [(output.column, output.type, str(sql)) for output, sql in made]


COLUMNS = Schema(
    [
        ColSpec("boolean", "b"),
        ColSpec("integer", "i"),
        ColSpec("long", "l", required=False),
        ColSpec("float", "f"),
        ColSpec("double", "d"),
        ColSpec("string", "s"),
        ColSpec("datetime", "t"),
        ColSpec(Array("double"), "a"),
        ColSpec(Object([Property("x", "long"), Property("y", Array("string"))]), "o"),
        ColSpec(Map("boolean"), "m"),
    ]
)


def test_types_of_columns():
    """Each type of MLflow has a default SQL type that holds all its values."""
    made = inputs_of(COLUMNS)
    assert dict(zip(made.names, map(str, made.sql_types), strict=True)) == {
        "b": "BOOLEAN",
        "i": "DECIMAL(10,0)",
        "l": "DECIMAL(19,0)",
        "f": "DOUBLE",
        "d": "DOUBLE",
        "s": "VARCHAR(2000000) UTF8",
        "t": "TIMESTAMP",
        "a": "VARCHAR(2000000) UTF8",
        "o": "VARCHAR(2000000) UTF8",
        "m": "VARCHAR(2000000) UTF8",
    }
    assert [column.feature for column in made.inputs] == made.names
    assert [column.feature for column in made.inputs if not column.required] == ["l"]
    nested = {column.feature: column.schema for column in made.inputs if column.schema}
    assert nested["a"] == {"type": "array", "items": {"type": "double"}}
    assert set(nested) == {"a", "o", "m"}


def test_datetime_as_text():
    """A datetime in a VARCHAR is ISO text."""
    schema = Schema([ColSpec("datetime", "since"), ColSpec("datetime", "until")])
    made = inputs_of(schema, types={"since": "varchar(30)"})
    assert [column.iso for column in made.inputs] == [True, False]
    assert str(made.sql_types[0]) == "VARCHAR(30) UTF8"


def test_null_as_empty():
    """``null_as_empty`` is accepted for text features only."""
    made = inputs_of(COLUMNS, null_as_empty=["s"])
    assert [column.feature for column in made.inputs if column.null_as_empty] == ["s"]
    with pytest.raises(ScriptError, match="'d' is double in the signature, not string"):
        inputs_of(COLUMNS, null_as_empty=["d"])


def test_keys():
    """Keys come first, are in upper case unless quoted, and are DECIMAL(36,0) without a type."""
    made = inputs_of(COLUMNS, keys=["id", '"Part No" varchar(20)', "price decimal(10,2)"])
    assert [(key.column, key.whole) for key in made.keys] == [
        ("ID", True),
        ("Part No", False),
        ("PRICE", False),
    ]
    assert [str(sql) for sql in made.sql_types[:3]] == [
        "DECIMAL(36,0)",
        "VARCHAR(20) UTF8",
        "DECIMAL(10,2)",
    ]
    assert parse_keys([]) == []


@pytest.mark.parametrize(
    ("features", "options", "reason"),
    [
        (["ID"], {"keys": ["id"]}, "Two parameters would be called 'ID'"),
        (["a"], {"keys": ["id", "ID double"]}, "'ID' is given twice"),
        (["a"], {"keys": ["my id"]}, "--key MY: 'id' is not a type.* blanks, .*quotation marks"),
        (["a"], {"keys": ["t.id"]}, "--key T: '.id' is not a type.* no dot in an identifier"),
        (["a.b", "a_b"], {}, "Two parameters would be called 'a_b'"),
        (["a", "b"], {"renames": {"a": '"b"'}}, "Two parameters would be called 'b'"),
        (["x" * 129], {}, "has 129 characters, and a parameter 1 to 128"),
        (["a\nb"], {}, "line break"),
        (["age"], {"types": {"Age": "DOUBLE"}}, "no feature 'Age'. Did you mean 'age'"),
        (["a1", "age", "b"], {"types": {"AGEE": "INT"}}, r"mean 'age'\? Its .* are: a1, age, b$"),
        (["x1", "x2"], {"types": {"b": "INT"}}, "no feature 'b'. Its features are: x1, x2$"),
        (list(map(str, range(103))), {"types": {"b": "INT"}}, r" 0, 1, .* 99 and 3 more$"),
        (["age"], {"renames": {"size": "B"}}, "no feature 'size'"),
        (["age"], {"renames": {"age": "my age"}}, "--rename age: 'age' was not expected"),
        (["age"], {"null_as_empty": ["name"]}, "no feature 'name'"),
    ],
)
def test_names_that_clash_or_are_unknown(features, options, reason):
    """Names that clash, are invalid or are unknown are refused with the reason."""
    with pytest.raises(ScriptError, match=reason):
        inputs_of(Schema([ColSpec("double", name) for name in features]), **options)


def test_names_that_do_not_clash():
    """Names may differ only in case; a long one can be renamed; dots become underscores."""
    schema = Schema([ColSpec("double", n) for n in ("id", "Id", "x.y", "size", "größe", "z" * 129)])
    made = inputs_of(schema, keys=["id"], renames={"z" * 129: "Z"})
    assert made.names == ["ID", "id", "Id", "x_y", "size", "größe", "Z"]
    assert made.inputs[2].feature == "x.y"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([ColSpec("binary", "x")], "'x' is binary in the signature"),
        ([ColSpec(AnyType(), "x")], "'x' is any in the signature"),
        ([ColSpec(Array("binary"), "x")], "binary within array"),
        ([ColSpec(Map(Array("binary")), "x")], "binary within map"),
        ([TensorSpec(np.dtype("float64"), (-1, 28, 28))], r"shape \(-1, 28, 28\)"),
        ([TensorSpec(np.dtype("float64"), (-1, 1001))], "n up to 1,000"),
        ([TensorSpec(np.dtype("float64"), (-1, -1))], r"shape \(-1, -1\)"),
        ([TensorSpec(np.dtype("float64"), (3,))], r"shape \(3,\)"),
        ([TensorSpec(np.dtype("complex128"), (-1,))], "complex128"),
        (
            [TensorSpec(np.dtype("f8"), (-1,), "a"), TensorSpec(np.dtype("f8"), (-1,), "b")],
            "several input tensors",
        ),
    ],
)
def test_inputs_without_a_sql_type(schema, reason):
    """An input that cannot be a column is refused with the reason."""
    with pytest.raises(ScriptError, match=reason):
        inputs_of(Schema(schema))


@pytest.mark.parametrize("schema", [None, []])
def test_no_signature(schema):
    """A model without inputs is refused; the message has two ways to add a signature."""
    with pytest.raises(ScriptError, match=r"infer_signature.*set_signature"):
        parameters(schema, types={}, renames={})


@pytest.mark.parametrize(
    ("dtype", "shape", "names", "sql"),
    [
        ("float32", (-1,), ["FEATURE"], "DOUBLE"),
        ("float64", (-1, 3), ["FEATURE_0", "FEATURE_1", "FEATURE_2"], "DOUBLE"),
        ("uint8", (-1, 1), ["FEATURE_0"], "DECIMAL(10,0)"),
        ("uint32", (-1,), ["FEATURE"], "DECIMAL(19,0)"),
        ("uint64", (-1,), ["FEATURE"], "DECIMAL(20,0)"),
        ("bool", (-1,), ["FEATURE"], "BOOLEAN"),
    ],
)
def test_tensors(dtype, shape, names, sql):
    """A tensor of shape (-1,) is one column, and one of shape (-1, n) is n columns."""
    made = inputs_of(Schema([TensorSpec(np.dtype(dtype), shape)]))
    assert made.names == names
    assert set(map(str, made.sql_types)) == {sql}
    assert made.tensor == Tensor(dtype=dtype, columns=shape[1] if len(shape) > 1 else None)


def test_named_tensor():
    """A tensor's name is the prefix of its columns' names, and is passed to the model."""
    made = inputs_of(Schema([TensorSpec(np.dtype("float32"), (-1, 2), "image")]))
    assert made.names == ["image_0", "image_1"]
    assert made.tensor == Tensor(dtype="float32", columns=2, name="image")


def test_unnamed_columns():
    """Columns without names are named by their position."""
    made = inputs_of(Schema([ColSpec("double"), ColSpec("string")]), types={"FEATURE_0": "DECIMAL"})
    assert made.inputs == (
        Input(column="FEATURE_0", feature=None, type="double"),
        Input(column="FEATURE_1", feature=None, type="string"),
    )
    assert str(made.sql_types[0]) == "DECIMAL(18,0)"


def predicted(values):
    """Return the schema that MLflow infers from predictions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return infer_signature(pd.DataFrame({"x": [1.0, 2.0]}), values).outputs


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1, 2]), [("PREDICTION", "long", "DECIMAL(19,0)")]),
        (np.array(["a", "b"]), [("PREDICTION", "string", "VARCHAR(2000000) UTF8")]),
        (np.array([True, False]), [("PREDICTION", "boolean", "BOOLEAN")]),
        (np.array([1, 2], dtype="uint64"), [("PREDICTION", "uint64", "DECIMAL(20,0)")]),
        (
            pd.DataFrame({"label": ["a", "b"], "Score": [1.0, 2.0]}),
            [("LABEL", "string", "VARCHAR(2000000) UTF8"), ("SCORE", "double", "DOUBLE")],
        ),
        (
            pd.DataFrame({"date": [1.0, 2.0], "p (%)": [1.0, 2.0], "a.b": [1.0, 2.0]}),
            [
                ("DATE", "double", "DOUBLE"),
                ("p (%)", "double", "DOUBLE"),
                ("a_b", "double", "DOUBLE"),
            ],
        ),
        (
            pd.DataFrame({"p": [1.0, 2.0], "P": [1, 2]}),
            [("p", "double", "DOUBLE"), ("P", "long", "DECIMAL(19,0)")],
        ),
        (pd.Series([1.0, 2.0]), [("PREDICTION", "double", "DOUBLE")]),
        ([{"x": 1}, {"x": 2}], [("X", "long", "DECIMAL(19,0)")]),
    ],
)
def test_outputs_that_mlflow_infers(values, expected):
    """Inferred outputs become columns, in upper case unless names would clash."""
    assert outputs_of(predicted(values)) == expected


def test_probabilities():
    """A tensor of n columns has n outputs; one of any number of columns needs options."""
    fixed = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    assert outputs_of(fixed) == [
        ("PREDICTION_0", "double", "DOUBLE"),
        ("PREDICTION_1", "double", "DOUBLE"),
    ]
    anything = Schema([TensorSpec(np.dtype("float32"), (-1, -1))])
    with pytest.raises(ScriptError, match=r"any number of columns.*--score-example"):
        outputs_of(anything)
    assert outputs_of(anything, ("p", "DOUBLE")) == [("P", "float", "DOUBLE")]


def test_outputs_by_option():
    """Options set the names and types of outputs, in order; other outputs are unchanged."""
    schema = Schema([ColSpec("double", "score"), ColSpec("long", "n")])
    assert outputs_of(schema, ("risk", "DECIMAL(5,4)")) == [
        ("RISK", "decimal", "DECIMAL(5,4)"),
        ("N", "long", "DECIMAL(19,0)"),
    ]
    assert outputs_of(None, ('"Risk"', "double"), ("class", "varchar(9)")) == [
        ("Risk", "double", "DOUBLE"),
        ("CLASS", "string", "VARCHAR(9) UTF8"),
    ]


@pytest.mark.parametrize(
    ("schema", "named", "taken", "reason"),
    [
        (None, [], (), "its signature has no outputs. Declare them with --output"),
        (Schema([ColSpec("double", "p")]), [("a", "DOUBLE"), ("b", "DOUBLE")], (), "predicts 1"),
        (Schema([ColSpec("double", "id")]), [], ("ID",), "Two emitted columns .* 'ID'"),
        (Schema([ColSpec("double", "p")]), [("p", "VARCHAR(9)")], (), "with double"),
        (Schema([ColSpec("binary", "p")]), [], (), "'p' is binary"),
        (Schema([ColSpec("double", "p" * 129)]), [], (), "129 characters.*--output NAME=TYPE"),
        (Schema([TensorSpec(np.dtype("f8"), (-1, 2, 2))]), [], (), "output tensor of shape"),
        (Schema([TensorSpec(np.dtype("O"), (-1,))]), [], (), "type of PREDICTION is not known"),
    ],
)
def test_outputs_that_are_refused(schema, named, taken, reason):
    """Outputs that are unknown, clash or cannot be emitted are refused with the reason."""
    with pytest.raises(ScriptError, match=reason):
        outputs_of(schema, *named, taken=taken)


def test_several_output_tensors():
    """A model with several output vectors has a column for each."""
    schema = Schema(
        [TensorSpec(np.dtype("float64"), (-1,), "p"), TensorSpec(np.dtype("int64"), (-1,), "n")]
    )
    assert outputs_of(schema) == [("P", "double", "DOUBLE"), ("N", "long", "DECIMAL(19,0)")]


PARAMS = json.loads(
    ParamSchema(
        [
            ParamSpec("temperature", "double", 1.0),
            ParamSpec("top", "integer", 1),
            ParamSpec("exact", "boolean", default=False),
            ParamSpec("mode", "string", "a"),
            ParamSpec("weights", "double", [1.0], shape=(-1,)),
        ]
    ).to_json()
)


def test_params():
    """Values are parsed as the types in the signature, from text and from numbers."""
    texts = {"temperature": "0.5", "top": "3", "exact": "TRUE", "mode": "3", "weights": "[1, 2.5]"}
    assert model_params(PARAMS, texts) == {
        "temperature": 0.5,
        "top": 3,
        "exact": True,
        "mode": "3",
        "weights": [1, 2.5],
    }
    assert model_params(PARAMS, {"top": 3}) == {"top": 3}
    assert model_params(None, {}) == {}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"size": "1"}, "no param 'size'. Its params are: temperature, top, exact, mode, weights$"),
        ({"tpo": "1"}, r"no param 'tpo'. Did you mean 'top'\? Its params are"),
        ({"top": "x"}, "'x' is not integer"),
        ({"top": "1.5"}, "1.5 is not integer"),
        ({"top": str(1 << 31)}, "is not integer"),
        ({"top": "true"}, "is not integer"),
        ({"temperature": "Infinity"}, "is not double"),
        ({"temperature": "NaN"}, "is not double"),
        ({"exact": "1"}, "is not boolean"),
        ({"weights": "1"}, "is not a list of double, in JSON"),
        ({"mode": 3}, "3 is not string"),
    ],
)
def test_params_that_do_not_fit(given, reason):
    """A value that the signature does not allow is refused."""
    with pytest.raises(ScriptError, match=reason):
        model_params(PARAMS, given)


def test_param_of_a_model_without_params():
    """A param for a model without params is refused."""
    with pytest.raises(ScriptError, match="Its params are: none"):
        model_params(None, {"top": "1"})


@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=150), unique=True, min_size=1
    )
)
def test_any_names_are_valid_or_refused(names):
    """For any names of features, parameters are unique and valid, or refused with a reason."""
    schema = [{"type": "double", "name": name} for name in names]
    try:
        made = parameters(schema, keys=["ID"], types={}, renames={})
    except ScriptError as error:
        assert str(error)  # noqa: PT017 -- both are allowed
    else:
        assert [column.feature for column in made.inputs] == names
        assert len(set(made.names)) == len(names) + 1
        assert all(1 <= len(name) <= 128 and "." not in name for name in made.names)
