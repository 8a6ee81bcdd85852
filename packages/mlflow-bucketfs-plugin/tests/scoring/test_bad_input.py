"""Invalid input of ``mlflow-bucketfs sql``: one clear error, and no script."""

from __future__ import annotations

import pytest

LONG = "x" * 129
TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2, 2]}}


def column(kind="double", name="age"):
    """Return a column of a signature, in MLflow's JSON."""
    return {"type": kind, "name": name, "required": True}


# the model, the options after `sql URI`, the exit status, and a part of the error
CASES = {
    "no name": ({}, [], 2, "Missing option '--name'"),
    "unknown option": ({}, ["--name", "S", "--tabel", "T"], 2, "--tabel"),
    "empty name": ({}, ["--name", ""], 1, "does not begin with an identifier"),
    "three-part name": ({}, ["--name", "a.b.c"], 1, "Write SCHEMA.NAME or NAME."),
    "name with a blank": ({}, ["--name", "my script"], 1, "'script' was not expected"),
    "name with a dot in quotes": ({}, ["--name", '"a.b"'], 1, "has a dot"),
    "long name": ({}, ["--name", LONG], 1, "129 characters"),
    "open quotes": ({}, ["--name", '"a'], 1, "is not closed"),
    "other store": ({"uri": "s3://b/m"}, ["--name", "S"], 1, "mlflow-bucketfs copy s3://b/m"),
    "bad URI": (
        {"uri": "exa+bfs://w:pw@h/s/b/m"},
        ["--name", "S"],
        1,
        "contains a user or password",
    ),
    "no model": ({"uri": "{}/nothing"}, ["--name", "S"], 1, "it has no MLmodel"),
    "unknown version": ({"uri": "models:/none/1"}, ["--name", "S"], 1, "with name=none not found"),
    "no version": ({"uri": "models:/churn"}, ["--name", "S"], 1, "one: models:/churn/1, models:/"),
    "malformed models URI": ({"uri": "models:/a/b/c"}, ["--name", "S"], 1, "Not a proper models:/"),
    "archive": ({"files": ["a.zip"]}, ["--name", "S"], 1, "these files: a.zip"),
    "no signature": ({"inputs": None}, ["--name", "S"], 1, "infer_signature"),
    "binary feature": ({"inputs": [column("binary")]}, ["--name", "S"], 1, "'age' is binary"),
    "3-D tensor": ({"inputs": [TENSOR]}, ["--name", "S"], 1, "shape (-1, 2, 2)"),
    "no outputs": ({"outputs": None}, ["--name", "S"], 1, "--output NAME=TYPE"),
    "too many outputs": (
        {},
        ["--name", "S", "--output", "a=INT", "--output", "b=INT"],
        1,
        "--output is given 2 times, but the model predicts 1 column(s): ",
    ),
    "key's type": ({}, ["--name", "S", "--key", "id STRING"], 1, "'STRING' is not a type"),
    "key with a blank": ({}, ["--name", "S", "--key", "my id"], 1, "blanks, or with other cha"),
    "key of 37 digits": ({}, ["--name", "S", "--key", "id DECIMAL(37,0)"], 1, "1 to 36 digits"),
    "two keys": ({}, ["--name", "S", "--key", "id", "--key", "ID"], 1, "'ID' is given twice"),
    "key as a feature": ({}, ["--name", "S", "--key", '"age"'], 1, "--rename age="),
    "key as an output": ({}, ["--name", "S", "--key", "score"], 1, "'SCORE'. Name the outputs"),
    "unknown feature": (
        {},
        ["--name", "S", "--type", "aeg=INT"],
        1,
        "mean 'age'? Its features are: age",
    ),
    "type that does not fit": ({}, ["--name", "S", "--type", "age=DATE"], 1, "with long"),
    "no equals sign": ({}, ["--name", "S", "--type", "age"], 2, "not of the form NAME=VALUE"),
    "option twice": (
        {},
        ["--name", "S", "--type", "age=INT", "--type", "age=DOUBLE"],
        2,
        "'age' is given twice",
    ),
    "rename to no name": ({}, ["--name", "S", "--rename", "age=1st"], 1, "begin with an identif"),
    "unknown param": ({}, ["--name", "S", "--param", "n=1"], 1, "Its params are: none"),
    "empty for a number": ({}, ["--name", "S", "--null-as-empty", "age"], 1, "age' is long"),
    "language": ({}, ["--name", "S", "--language", "PYTHON 3"], 1, "alias of a script language"),
    "batch of nothing": ({}, ["--name", "S", "--batch-size", "0"], 1, "--batch-size: 0"),
    "batch of text": ({}, ["--name", "S", "--batch-size", "all"], 2, "not a valid integer"),
    "on-error": ({}, ["--name", "S", "--on-error", "skip"], 2, "'skip' is not one of"),
    "loader": ({}, ["--name", "S", "--loader", "pickle"], 2, "'pickle' is not one of"),
    "loader not possible": (
        {"metadata": {"mlflow.model.isExternal": True}},
        ["--name", "S", "--loader", "direct"],
        1,
        "external model",
    ),
    "view without table": ({}, ["--name", "S", "--view", "V"], 1, "--view needs --table"),
    "bad table": ({}, ["--name", "S", "--table", "a b"], 1, "--table: 'b' was not expected"),
    "relative path": ({}, ["--name", "S", "--mounted-path", "m"], 1, "not the absolute path"),
    "no constraints": ({}, ["--name", "S", "--constraints", "/no/file"], 2, "does not exist"),
    "no example": ({}, ["--name", "S", "--score-example"], 1, "without input_example"),
    "example that fails": (
        {"saved_input_example_info": {"artifact_path": "none.json", "type": "dataframe"}},
        ["--name", "S", "--score-example"],
        1,
        "cannot score its input example here",
    ),
    "names of 129 characters": (
        {"inputs": [column(name=LONG)]},
        ["--name", "S"],
        1,
        "--rename 'FEATURE=PARAMETER'",
    ),
    "output of 129 characters": (
        {"outputs": [column(name=LONG)]},
        ["--name", "S"],
        1,
        "129 characters",
    ),
}


@pytest.fixture(autouse=True)
def _tracking(environment, tracking_uri):
    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, store_model, command, server):
    """Invalid input is an error with a reason and an exit status; standard output is empty."""
    model, options, status, reason = CASES[case]
    model = dict(model)
    uri = model.pop("uri", None)
    stored = store_model(**model)
    result = command("sql", (uri or stored).format(server.uri()), *options)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert "pw" not in result.stderr


def test_damaged_signature(server, command):
    """A signature that is not JSON is an error."""
    server.put("m/MLmodel", b"flavors: {python_function: {}}\nsignature: {inputs: 7}")
    result = command("sql", server.uri(path="m"), "--name", "S")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The signature in the model's MLmodel is damaged" in result.stderr


def test_unreachable_bucket(server, store_model, command):
    """An unreachable bucket is an error with its address."""
    uri, address = store_model(), f"127.0.0.1:{server.port}"
    server.stop()
    result = command("sql", uri, "--name", "S")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: " in result.stderr
    assert address in result.stderr
