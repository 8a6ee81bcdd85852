"""``mlflow-bucketfs-testing udf``: scripts on CSV files."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from mlflow_bucketfs_testing.cli import main

_SCRIPT = """\
CREATE OR REPLACE PYTHON3 SET SCRIPT total(id DECIMAL(36,0), x DECIMAL(10,2), ok BOOLEAN)
EMITS (id DECIMAL(36,0), "total" DECIMAL(20,2), share DOUBLE, ok BOOLEAN) AS
def run(ctx):
    print("group of", ctx.size(), flush=True)
    total = 0
    while True:
        total += ctx.x or 0
        if not ctx.next(): break
    ctx.reset()
    ctx.emit(ctx.id, total, 0.1, ctx.ok)
/
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a directory with a script."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "total.sql").write_text(_SCRIPT)
    return tmp_path


@pytest.fixture
def refused(folder):
    """Return a function that runs the command, which must fail, and returns its output."""
    del folder

    def run(*arguments):
        result = CliRunner().invoke(main, ["udf", *arguments])
        assert result.exit_code == 1, result.output
        return result.output

    return run


def test_rows_of_a_file(folder):
    """Ids keep their digits, empty fields are NULLs, and the script's output goes to stderr."""
    (folder / "rows.csv").write_text(
        f"ID,region,x,OK\n9007199254740993,south,1.10,true\n2,north,,\n{'9' * 36},south,2.20,\n"
    )
    command = [sys.executable, "-m", "mlflow_bucketfs_testing", "udf", "total.sql"]
    done = subprocess.run(
        [*command, "--input", "rows.csv", "--group-by", "region"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout == ("id,total,share,ok\n9007199254740993,3.30,0.1,TRUE\n2,0,0.1,\n")
    assert done.stderr == "group of 2\ngroup of 1\n"


def test_rows_of_standard_input_and_buckets(folder):
    """``-`` is standard input, and the script gets the directory of ``--buckets``."""
    (folder / "f.sql").write_text(
        "CREATE PYTHON3 SCALAR SCRIPT f(x VARCHAR(10)) RETURNS VARCHAR(1000) AS\nimport os\n"
        "root = os.environ['EXA_BUCKETFS_MOUNT_ROOT']\n"
        "def run(ctx): return (ctx.x or '') + os.path.basename(root)\n"
    )
    (folder / "mount").mkdir()
    arguments = ["udf", "f.sql", "--input", "-", "--buckets", "mount"]
    result = CliRunner().invoke(main, arguments, input='\N{BYTE ORDER MARK}x\n"a,b"\n\n')

    assert result.output == 'RETURN\n"a,bmount"\nmount\n'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("id,x\n1,2\n", "the rows have no column ok; they have id, x"),
        ("id,x,ok\n1,soon,\n", "row 1, column x: 'soon' does not fit DECIMAL(10,2)"),
        ("id,x,ok\n1,2.345,\n", "row 1, column x: Decimal('2.345') does not fit"),
        ("id,x,ok\n1,2\n", "row 1 has 2 fields; the first line names 3 columns"),
        ("id,x,ok\n\n", "row 1 has 1 fields; the first line names 3 columns"),
        ("id,x,id\n", "the first line names a column twice: id, x, id"),
        ("", "the first line is empty: it must name the columns"),
        ("id;x;ok\n1;2;\n", "the first line has ';' but no comma: fields are separated by commas"),
        ('id,x,ok\n"1"2,3,\n', "line 2 is not valid CSV"),
    ],
)
def test_files_that_do_not_fit(folder, refused, rows, message):
    """The error names the file, the row and the column."""
    (folder / "rows.csv").write_text(rows)

    output = refused("total.sql", "--input", "rows.csv")
    assert f"Error: rows.csv: {message}" in output


def test_a_script_that_cannot_be_parsed(folder, refused):
    """The error names the file, the line and the column."""
    (folder / "bad.sql").write_text("CREATE PYTHON3 SET SCRIPT f(\n  ...) EMITS (x INT) AS x")
    (folder / "rows.csv").write_text("x\n")

    assert "Error: bad.sql, line 2, column 3: ... is not" in refused(
        "bad.sql", "--input", "rows.csv"
    )


def test_a_script_that_fails(folder, refused):
    """The script's output is printed, then once the error text that a SQL user sees."""
    (folder / "f.sql").write_text(
        "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\n"
        "def run(ctx):\n    print('seen')\n    return 1 / ctx.x\n"
    )
    (folder / "rows.csv").write_text("x\n0\n")

    output = refused("f.sql", "--input", "rows.csv")
    assert output.startswith("seen\nError: F-UDF-CL-LIB-1127: ")
    assert output.count("ZeroDivisionError: division by zero") == 1


def test_a_script_without_parameters(folder):
    """A script without parameters needs no file, and is called once."""
    (folder / "f.sql").write_text(
        "CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\ndef run(c): return 1\n"
    )

    assert CliRunner().invoke(main, ["udf", "f.sql"]).output == "RETURN\n1\n"


@pytest.mark.usefixtures("folder")
def test_a_script_with_parameters_needs_a_file():
    """The error names the parameters and the option."""
    result = CliRunner().invoke(main, ["udf", "total.sql"])

    assert result.exit_code == 2
    assert "the script has parameters (id, x, ok): use --input FILE" in result.output


def test_a_script_that_takes_too_long(folder, refused):
    """The error names the option that allows more."""
    (folder / "f.sql").write_text(
        "CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\nimport time\n"
        "def run(ctx): time.sleep(600)\n"
    )

    output = refused("f.sql", "--timeout", "0.1")
    assert "the UDF took more than 0.1 s and was killed; allow more with timeout_s" in output
    assert "--timeout in a shell" in output


def test_a_client_that_is_missing(folder, refused):
    """The error names the path of the missing client."""
    (folder / "rows.csv").write_text("x\n")

    output = refused("total.sql", "--input", "rows.csv", "--client", "/none/exaudfclient")
    assert "Error: there is no UDF client at /none/exaudfclient" in output
