"""The script's text, the SELECT, and the output of ``mlflow-bucketfs sql``."""

from __future__ import annotations

import ast
import json
from importlib.metadata import version

import pytest
from mlflow_bucketfs_plugin.scoring.cli import options_from_config

MIXED = [
    {"type": "long", "name": "age", "required": True},
    {"type": "double", "name": "income.net", "required": True},
    {"type": "string", "name": "country", "required": True},
    {"type": "datetime", "name": "date", "required": False},
]


def test_complete_script(make_script, server):
    """The script has parameters, outputs, a comment, valid Python code, and the final slash."""
    script = make_script(MIXED, keys=["customer_id", "part char(3)"], name="ml.churn")
    head, _, body = script.text.partition(" AS\n")
    assert head == (
        "CREATE OR REPLACE PYTHON3_MLFLOW SET SCRIPT ML.CHURN(\n"
        "  CUSTOMER_ID DECIMAL(36,0),\n"
        "  PART CHAR(3) UTF8,\n"
        "  age DECIMAL(19,0),\n"
        "  income_net DOUBLE,\n"
        "  country VARCHAR(2000000) UTF8,\n"
        '  "date" TIMESTAMP\n'
        ")\n"
        "EMITS (\n"
        "  CUSTOMER_ID DECIMAL(36,0),\n"
        "  PART CHAR(3) UTF8,\n"
        "  SCORE DOUBLE\n"
        ")"
    )
    lines = body.splitlines()
    path = f"/buckets/bfsdefault/{server.buckets[0].name}/m"
    assert lines[0] == f"# Scores rows with {server.uri(path='m')} at {path}."
    assert lines[-1] == "/"
    assert body.endswith("\n")
    ast.parse("\n".join(lines[:-1]))
    # no line ends the script for a client, or is an option for Exasol
    assert not [line for line in lines[:-1] if line.startswith("%") or line.strip() == "/"]
    assert script.name == "ML.CHURN"


def test_metadata(make_script, server):
    """A comment of the script has the model's metadata as JSON."""
    script = make_script(model={"run_id": "0123"})
    line = next(line for line in script.text.splitlines() if line.startswith("# mlflow-bucketfs:"))
    assert json.loads(line.removeprefix("# mlflow-bucketfs:")) == script.metadata
    assert script.metadata == {
        "plugin": version("mlflow-bucketfs-plugin"),
        "model": server.uri(path="m"),
        "requested": server.uri(path="m"),
        "artifacts": server.uri(path="m"),
        "path": script.spec.model,
        "model_id": f"m-{'0a' * 16}",
        "run_id": "0123",
        "inputs": [[column.name, column.sql_type] for column in script.inputs],
    }
    assert "of run 0123 at" in script.text


@pytest.mark.parametrize(
    ("key", "argument"),
    [("age", "AGE"), ('"age"', '"age"'), ("Id", "ID"), ('"Id"', '"Id"'), ("end", '"END"')],
)
def test_keys_in_the_select_are_columns(make_script, key, argument):
    """A key is passed as the named column; a feature of the same name keeps its own column."""
    model = [{"type": "long", "name": "age" if key != '"age"' else "years"}]
    assert f"SCORES({argument}, {model[0]['name']})" in make_script(model, keys=[key]).select


def test_names_cannot_leave_the_comment(make_script):
    """A line break in a run's id does not end the comment."""
    script = make_script(model={"run_id": "x\n/\nimport os"})
    assert "\nimport os" not in script.text.partition(" AS\n")[2].partition('"""')[0]


def test_inputs_and_outputs(make_script):
    """The result has the script's parameters and outputs, with their sources."""
    script = make_script(MIXED, keys=["id"], on_error="column")
    assert [(c.name, c.sql_type, c.source) for c in script.inputs][:3] == [
        ("ID", "DECIMAL(36,0)", None),
        ("age", "DECIMAL(19,0)", "age"),
        ("income_net", "DOUBLE", "income.net"),
    ]
    assert [(c.name, c.sql_type, c.source) for c in script.outputs] == [
        ("ID", "DECIMAL(36,0)", None),
        ("SCORE", "DOUBLE", "score"),
        ("SCORING_ERROR", "VARCHAR(2000) UTF8", None),
    ]
    assert script.spec.on_error == "column"


def test_select(make_script):
    """Without a table, the SELECT has a placeholder; with a view, it is a CREATE VIEW."""
    assert make_script(keys=["id"]).select == (
        "SELECT SCORES(ID, age)\nFROM MY_TABLE GROUP BY IPROC();"
    )
    script = make_script(table='shop."Customers"', view="ml.scored")
    assert script.select == (
        'CREATE OR REPLACE VIEW ML.SCORED AS\nSELECT SCORES(age)\nFROM SHOP."Customers" '
        "GROUP BY IPROC();"
    )


def test_select_of_datetimes(make_script):
    """With a table, a datetime that is passed as text is formatted as ISO in the SELECT."""
    script = make_script(MIXED, types={"date": "VARCHAR(30)"}, table="t")
    assert "TO_CHAR(\"DATE\", 'YYYY-MM-DD HH24:MI:SS.FF6')" in script.select
    assert "TO_CHAR" not in make_script(MIXED, types={"date": "VARCHAR(30)"}).select


def test_long_select(make_script):
    """A SELECT with many features has lines of at most 100 characters."""
    many = [{"type": "double", "name": f"feature {i}, so called"} for i in range(300)]
    script = make_script(many)
    assert all(len(line) <= 100 for line in script.select.splitlines())
    assert script.select.count('"') == 600
    assert " ".join(script.select.split()).count('", "') == 299


def test_assumptions(make_script, server):
    """The assumptions name the path, the digests, the loader, and changed names and types."""
    printed = "\n".join(make_script(MIXED).assumptions)
    for text in (
        "UDFs see the model at /buckets/",
        f"verifies 2 files by their SHA-256; {len(server.read('m/MLmodel')) + 7} bytes were",
        "loaded without MLflow",
        "Without --key, the results cannot be assigned to the table's rows.",
        "The feature income.net is the parameter income_net",
        "A TIMESTAMP is read three times slower than other types: date.",
        "--type 'date=VARCHAR(30)'",
        "Replace MY_TABLE by the table",
    ):
        assert text in printed, text
    printed = "\n".join(
        make_script(keys=["id", '"My id"', "n int"], verify=False, loader="mlflow").assumptions
    )
    for text in (
        "Keys without a type are whole numbers, DECIMAL(36,0): ID, My id.",
        "not verified: anyone who can write to the bucket can change",
        "loaded by MLflow",
    ):
        assert text in printed, text
    assert "TIMESTAMP" not in printed


def test_comparison_with_a_container(server, make_script, tmp_path):
    """Differences to the container's versions are listed; a model may have no requirements."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("scikit-learn==1.9.1\n", encoding="utf-8")
    assumptions = make_script(constraints=constraints).assumptions
    assert assumptions[-1] == "The model has no requirements.txt to compare with the container."
    server.put("m/requirements.txt", b"scikit-learn==1.8.0\n")
    assumptions = make_script(constraints=constraints).assumptions
    assert (
        assumptions[-1]
        == "Another version: scikit-learn: ==1.8.0 in the model, 1.9.1 in the container"
    )
    server.put("m/requirements.txt", b"scikit-learn==1.9.1\n")
    assumptions = make_script(constraints=constraints, verify=False).assumptions
    assert assumptions[-1] == "The model and the container have the same versions."


def test_command(command, store_model):
    """The script is printed to standard output, SELECT and assumptions to standard error."""
    uri = store_model(
        MIXED,
        params=[{"name": "n", "type": "long", "default": 1, "shape": None}],
        flavors={"python_function": {"loader_module": "mlflow.pyfunc.model"}},
    )
    options = (
        *("--key", "id", "--type", "date=VARCHAR(30)", "--output", "risk=DECIMAL(5,4)"),
        *("--rename", "income.net=INCOME", "--param", "n=3", "--on-error", "column"),
        *("--table", "shop.customers", "--view", "scored", "--batch-size", "500"),
        *("--null-as-empty", "country", "--language", "PYTHON3", "--no-verify"),
        *("--mounted-path", "/buckets/a/b/m"),
    )
    result = command("sql", uri, "--name", "ML.CHURN", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("CREATE OR REPLACE PYTHON3 SET SCRIPT ML.CHURN(\n  ID")
    assert result.stdout.endswith("\n/\n")
    assert "  INCOME DOUBLE,\n" in result.stdout
    assert "  RISK DECIMAL(5,4),\n  SCORING_ERROR VARCHAR(2000) UTF8\n" in result.stdout
    assert result.stderr.startswith("CREATE OR REPLACE VIEW SCORED AS\nSELECT ML.CHURN(ID, age")
    assert "\n- UDFs see the model at /buckets/a/b/m.\n" in result.stderr
    spec = json.loads(result.stdout.partition('r"""')[2].partition('"""')[0])
    assert spec["batch_rows"] == 500
    assert spec["params"] == {"n": 3}
    assert spec["model"] == "/buckets/a/b/m"
    assert [i["null_as_empty"] for i in spec["inputs"]] == [False, False, True, False]


def test_help_is_quick(run_python):
    """The help of each command is printed without importing MLflow, core or NumPy."""
    printed = run_python(
        """
        import sys
        from click.testing import CliRunner
        from mlflow_bucketfs_plugin.cli import main
        for command in ([], *([name] for name in main.commands)):
            assert "Usage: " in CliRunner().invoke(main, [*command, "--help"]).output
        print([n for n in ("mlflow", "mlflow_bucketfs_core", "yaml", "numpy") if n in sys.modules])
        """
    )
    assert printed.strip() == "[]"


def test_no_numpy_is_needed(store_model, run_python):
    """A script is made without NumPy, pandas and scikit-learn."""
    run_python(
        """
        import sys
        for name in ("numpy", "pandas", "sklearn"):
            sys.modules[name] = None
        from mlflow_bucketfs_plugin.scoring import scoring_script
        assert "SCORE DOUBLE" in scoring_script(sys.argv[1], "s").text
        """,
        store_model(),
    )


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command, option):
    """Each command has a help text."""
    assert "Print a script that scores rows" in command("sql", option).output
    assert "Copy a model or a folder" in command("copy", option).output


def test_exit_statuses_in_the_help(command, store_model):
    """The help distinguishes the exit statuses as the commands do."""
    texts = {name: " ".join(command(name, "--help").output.split()) for name in ("sql", "copy")}
    assert "1 if it cannot be made from this model with these options, 2 if the" in texts["sql"]
    assert all("2 if the command line cannot be parsed." in text for text in texts.values())
    uri = store_model()
    for options in (["--batch-size", "0"], ["--view", "V"], ["--key", "id STRING"]):
        assert command("sql", uri, "--name", "S", *options).exit_code == 1
    for options in ([], ["--name", "S", "--nonsense"], ["--name", "S", "--type", "age"]):
        assert command("sql", uri, *options).exit_code == 2
    assert command("copy", "m", "not a URI").exit_code == 1
    assert command("copy", "m").exit_code == 2


def test_help_after_a_deployment(command):
    """``-h`` works after the same options were parsed from MLflow's ``-C``."""
    options_from_config({"verify": "no"})
    assert "Print a script that scores rows" in command("sql", "-h").output
