"""`UdfRunner` with the reference client: scripts as a database runs them."""

from __future__ import annotations

import datetime as dt
import json
import sys
from decimal import Decimal

import pandas as pd
import pytest
from mlflow_bucketfs_testing import (
    BucketFSServer,
    UdfClientError,
    UdfError,
    UdfResult,
    UdfRunner,
    UdfScriptError,
    UdfValueError,
)
from mlflow_bucketfs_testing.errors import Secret
from mlflow_bucketfs_testing.udf.values import split_rows

pytest_plugins = ["pytester"]

_ECHO = """
    CREATE PYTHON3 SET SCRIPT echo(id DECIMAL(18,0), x VARCHAR(100))
    EMITS (id DECIMAL(18,0), x VARCHAR(100)) AS
    def run(ctx):
        while True:
            ctx.emit(ctx.id, ctx.x)
            if not ctx.next(): break
    /"""
_BIG = 9007199254740993


@pytest.fixture(scope="module")
def runner():
    """Start a runner with the reference client, without buckets."""
    with UdfRunner() as started:
        yield started


@pytest.fixture
def no_process(monkeypatch):
    """Fail the test if a client is started."""

    def fail(*_, **__):
        pytest.fail("a client was started")

    monkeypatch.setattr("mlflow_bucketfs_testing.udf.runner.serve", fail)


def test_the_example(runner):
    """Ids keep their digits, and the values have the types of the output columns."""
    udf = runner.create("""
        CREATE OR REPLACE PYTHON3 SET SCRIPT double_it(id DECIMAL(36,0), x DOUBLE)
        EMITS (id DECIMAL(36,0), y DOUBLE) AS
        def run(ctx):
            while True:
                ctx.emit(ctx.id, ctx.x * 2)
                if not ctx.next(): break
        /""")
    result = udf.run([(_BIG, 1.5)])

    assert result.rows == [(Decimal(_BIG), 3.0)]
    assert result.groups == {None: result.rows}
    assert result.columns == ("id", "y")


def test_groups_by_a_column_that_is_no_parameter(runner):
    """Each group is one call of ``run``; NULLs are a separate group."""
    udf = runner.create("""
        CREATE PYTHON3 SET SCRIPT add(x INT) RETURNS INT AS
        def run(ctx):
            total = 0
            while True:
                total += ctx.x
                if not ctx.next(): return total
        /""")
    regions = ["south", "north", None, "south", None]
    frame = pd.DataFrame({"REGION": regions, "X": range(5)})
    result = udf.run(frame, groups="region", packet_rows=1)

    assert result.groups == {"south": [(3,)], "north": [(1,)], None: [(6,)]}
    assert result.rows == [(3,), (1,), (6,)]


_EVERY_TYPE = {
    "a DECIMAL(9,0)": 5,
    "b DECIMAL(18,0)": 10**17 + 1,
    "c DECIMAL(36,0)": Decimal(10**35 + 1),
    "d DECIMAL(10,3)": Decimal("1.250"),
    "e DOUBLE": 0.1,
    "f BOOLEAN": True,
    "g VARCHAR(10)": "äb",
    "h CHAR(3)": "a  ",
    "i DATE": dt.date(2020, 2, 29),
    "j TIMESTAMP": dt.datetime.fromisoformat("2020-02-29 01:02:03.004005"),
}


def test_every_type_and_its_null_in_several_packets(runner):
    """Values of each type, and their NULLs, are returned unchanged, in several packets."""
    columns = ", ".join(_EVERY_TYPE)
    names = ", ".join(f"ctx.{column.split()[0]}" for column in _EVERY_TYPE)
    udf = runner.create(
        f"CREATE PYTHON3 SET SCRIPT every({columns}) EMITS ({columns}) AS\n"
        f"def run(ctx):\n  while True:\n    ctx.emit({names})\n    if not ctx.next(): break\n"
    )
    full = tuple(_EVERY_TYPE.values())
    holes = [tuple(None if n == at else v for n, v in enumerate(full)) for at in range(len(full))]
    rows = [full, *holes, (None,) * len(full)]
    result = udf.run(rows, packet_rows=2)

    assert result.rows == rows
    assert [type(value) for value in result.rows[0]] == [type(value) for value in full]
    frame = result.to_pandas()
    assert list(frame.columns) == list("abcdefghij")
    assert frame["b"].dtype == "Int64"
    assert frame["b"][0] == 10**17 + 1
    assert frame["c"][0] == Decimal(10**35 + 1)
    assert frame["f"].dtype == "boolean"


def test_scalar_scripts(runner):
    """``run`` gets one row at a time, and may emit any number of rows for it."""
    returns = runner.create(
        "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS DOUBLE AS\n"
        "def run(ctx): return None if ctx.x is None else ctx.x / 2\n"
    )
    emits = runner.create(
        "CREATE PYTHON3 SCALAR SCRIPT f(x INT) EMITS (y INT) AS\n"
        "def run(ctx):\n  for y in range(ctx.x): ctx.emit(y)\n"
    )

    result = returns.run([(1,), (None,), (3,)], packet_rows=2)
    assert result.rows == [(0.5,), (None,), (1.5,)]
    assert result.columns == ("RETURN",)
    assert emits.run([(2,), (0,), (1,)]).rows == [(0,), (1,), (0,)]


def test_connections_and_imported_scripts(runner):
    """A script gets the connections and scripts that are passed to the call."""
    udf = runner.create("""
        CREATE PYTHON3 SCALAR SCRIPT f() EMITS (a VARCHAR(100), b VARCHAR(100)) AS
        lib = exa.import_script("LIB")
        def run(ctx):
            c = exa.get_connection("STORE")
            ctx.emit(lib.shout(c.address), c.user + c.password)
        /""")
    result = udf.run(
        [()],
        connections={"STORE": ("http://a", "u", Secret("secret"))},
        scripts={"LIB": "def shout(text): return text.upper()"},
    )

    assert result.rows == [("HTTP://A", "usecret")]


@pytest.mark.parametrize("call", ["run([()]", "call_adapter(''"], ids=["run", "call_adapter"])
def test_passwords_are_not_in_reports(pytester, call):
    """A report of pytest does not show the password of a connection."""
    pytester.makepyfile(f"""
        import pytest
        from mlflow_bucketfs_testing import UdfRunner
        password = "".join(["sec", "ret"])

        def test():
            with UdfRunner(__file__) as runner:
                kind = "ADAPTER" if "adapter" in {call!r} else "SCALAR"
                columns = "" if kind == "ADAPTER" else "() RETURNS INT"
                udf = runner.create(f"CREATE PYTHON3 {{kind}} SCRIPT f{{columns}} AS x")
                udf.{call}, connections={{"C": ("a", "u", password)}})
    """).chmod(0o700)

    result = pytester.runpytest_inprocess("-l", "--tb=long")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*UdfClient*"])
    result.stdout.no_fnmatch_line("*secret*")


def test_reports_end_in_the_test(pytester):
    """A report of pytest shows the script's error and output, and no code of the package."""
    pytester.makepyfile("""
        def test(udf_runner):
            udf_runner.create(
                "CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\\n"
                "def run(ctx):\\n    print('seen')\\n    1 / 0\\n"
            ).run([()])
    """)

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*ZeroDivisionError: division by zero"])
    result.stdout.no_fnmatch_line("*def _serve*")
    if sys.version_info >= (3, 11):
        result.stdout.fnmatch_lines(["E*The script printed:", "E*seen"])


def test_an_adapter(runner):
    """``adapter_call`` gets the request, and its response is returned."""
    udf = runner.create("""
        CREATE PYTHON3 ADAPTER SCRIPT a AS
        import json
        def adapter_call(request):
            return json.dumps({"type": json.loads(request)["type"]})
        /""")

    assert json.loads(udf.call_adapter('{"type": "refresh"}')) == {"type": "refresh"}
    with pytest.raises(ValueError, match="A is an adapter script: use call_adapter"):
        udf.run([()])


def test_default_output_columns(runner):
    """The function's result is returned; a missing function is an error."""
    udf = runner.create(
        "CREATE PYTHON3 SET SCRIPT f(x INT) EMITS (y INT) AS\n"
        "def default_output_columns(): return 'y INT'\ndef run(ctx): pass\n"
    )
    without = runner.create(_ECHO)

    assert udf.default_output_columns() == "y INT"
    with pytest.raises(UdfError, match="the script ECHO has no function default_output_columns"):
        without.default_output_columns()


def test_an_exception_in_a_script(runner):
    """The error has the client's text and codes, and separately the script's output."""
    udf = runner.create(
        "CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\n"
        "def run(ctx):\n  print('seen', flush=True)\n  raise ValueError('no such flower')\n"
    )
    with pytest.raises(UdfError, match="ValueError: no such flower") as caught:
        udf.run([(1,)])

    assert caught.value.code == "F-UDF-CL-LIB-1127"
    assert caught.value.output.startswith("seen\nF-UDF-CL-SL-PYTHON-1114")
    assert caught.value.printed == "seen\n"


def test_buckets_by_the_variable(tmp_path):
    """A script finds the mount of an embedded BucketFS, or a directory, by the variable."""
    script = (
        "CREATE PYTHON3 SCALAR SCRIPT f(name VARCHAR(100)) RETURNS VARCHAR(100) AS\n"
        "import os, pathlib\n"
        "def run(ctx):\n"
        "  root = os.environ['EXA_BUCKETFS_MOUNT_ROOT']\n"
        "  return pathlib.Path(root, 'bfsdefault', 'default', ctx.name).read_text()\n"
    )
    with BucketFSServer() as server, UdfRunner(buckets=server) as with_server:
        server.put("a/b.txt", b"from the server")
        assert with_server.create(script).run([("a/b.txt",)]).rows == [("from the server",)]
    (tmp_path / "bfsdefault" / "default").mkdir(parents=True)
    (tmp_path / "bfsdefault" / "default" / "c.txt").write_text("from the directory")
    with UdfRunner(buckets=tmp_path) as with_directory:
        assert with_directory.create(script).run([("c.txt",)]).rows == [("from the directory",)]


def test_a_literal_path_below_buckets(tmp_path):
    """If the client has no ``/buckets``, the error names the variable to use instead."""
    with UdfRunner(buckets=tmp_path) as runner:
        udf = runner.create(
            "CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\n"
            "def run(ctx): open('/buckets/bfsdefault/default/none')\n"
        )
        with pytest.raises(UdfError, match="take the path from EXA_BUCKETFS_MOUNT_ROOT") as caught:
            udf.run([()])

    assert not runner.sees_buckets
    assert "EXA_BUCKETFS_MOUNT_ROOT" not in caught.value.text


@pytest.mark.parametrize(
    ("code", "needs_buckets"),
    [
        ("open('/buckets/bfsdefault/default/none')", True),
        ("os.environ['EXA_BUCKETFS_MOUNT_ROOT']", True),
        ("open('/none')", False),
    ],
)
def test_a_run_without_buckets(monkeypatch, runner, code, needs_buckets):
    """If a script that reads buckets is run without any, the error names the option."""
    monkeypatch.delenv("EXA_BUCKETFS_MOUNT_ROOT", raising=False)
    udf = runner.create(
        f"CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\nimport os\ndef run(ctx): {code}\n"
    )
    with pytest.raises(UdfError) as caught:
        udf.run([()])

    hint = str(caught.value).removeprefix(caught.value.text)
    assert ("give --buckets DIRECTORY" in hint and "in Python buckets=" in hint) == needs_buckets
    assert bool(hint) == needs_buckets


def test_many_rows_in_frames(runner):
    """The rows of ten data frames are returned in order."""
    udf = runner.create("""
        CREATE PYTHON3 SET SCRIPT f(id DECIMAL(18,0), x DOUBLE)
        EMITS (id DECIMAL(18,0), x DOUBLE) AS
        def run(ctx):
            while (frame := ctx.get_dataframe(1000)) is not None:
                ctx.emit(frame.astype(object))
        /""")
    rows = [(number, number / 8) for number in range(10_000)]

    assert udf.run(rows).rows == rows


@pytest.mark.usefixtures("no_process")
def test_without_rows_nothing_is_started(runner):
    """The result is as in SQL: one row of NULLs without GROUP BY, no row with it or for SCALAR."""
    udf = runner.create(_ECHO)
    scalar = runner.create("CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\nx")

    assert udf.run([]).rows == [(None, None)]
    assert udf.run([], groups="id").rows == []
    assert scalar.run([]).rows == []


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "a"), (10**18, "b")], "row 2, column id: 1000000000000000000 does not fit DECIMAL"),
        ([(1,)], "row 1 has 1 values; the script has 2 parameters: id, x"),
        ([1], r"row 1 is 1; a row is a sequence with a value per parameter, such as \(1,\)"),
        (["ab"], "row 1 is 'ab'; a row is a sequence"),
        ([{"id": 1}], "the rows have no column x; they have id"),
        ([{"id": 1, "x": "a"}, {"id": 1}], "row 2 has other columns than row 1"),
        (pd.DataFrame({"id": [1]}), "the rows have no column x; they have id"),
        (pd.DataFrame([[1]]), "the data frame has 1 columns; the script has 2 parameters: id, x"),
        (
            pd.DataFrame([[1, "a", "b"]], columns=["id", "X", "X"]),
            "the rows have more than one column x; they have id, X, X",
        ),
    ],
)
def test_rows_that_do_not_fit(runner, rows, message):
    """Rows that do not fit are refused before a client is started."""
    with pytest.raises(UdfValueError, match=message):
        runner.create(_ECHO).run(rows)


@pytest.mark.usefixtures("no_process")
def test_invalid_arguments(runner):
    """Invalid arguments are refused before a client is started."""
    scalar = runner.create("CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS\nx")
    with pytest.raises(ValueError, match="F is a SCALAR script: only SET scripts have groups"):
        scalar.run([(1,)], groups="x")
    with pytest.raises(ValueError, match="packet_rows must be positive, not 0"):
        scalar.run([(1,)], packet_rows=0)
    with pytest.raises(UdfScriptError, match="line 2, column 1: expected AS"):
        runner.create("CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT\n")


@pytest.mark.parametrize(
    ("grouping", "keys"),
    [
        (None, []),
        ("a", [1, 1, None]),
        ("B", ["x", "y", "x"]),
        (["a", "b"], [(1, "x"), (1, "y"), (None, "x")]),
        (lambda row: row[1] == "x", [True, False, True]),
    ],
    ids=["none", "column", "case", "columns", "function"],
)
@pytest.mark.parametrize("kind", ["tuples", "mappings", "frame", "numbered frame"])
def test_rows_and_keys(kind, grouping, keys):
    """All kinds of rows give the same arguments and the same groups."""
    tuples = [(1, "x"), (1, "y"), (None, "x")]
    mappings = [{"b": b, "a": a, "c": 0} for a, b in tuples]
    numbered = pd.DataFrame(tuples).astype(object)
    rows = {
        "tuples": tuples,
        "mappings": mappings,
        "frame": pd.DataFrame(mappings).astype(object),
        "numbered frame": numbered,
    }[kind]

    arguments = split_rows(rows, ["a", "b"], grouping)

    columns = [[None if pd.isna(v) else v for v in column] for column in arguments.columns]
    assert (arguments.count, list(zip(*columns, strict=True))) == (3, tuples)
    assert arguments.keys == keys


def test_windows_is_refused(monkeypatch):
    """Importing the package on Windows raises an error that names the alternatives."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delitem(sys.modules, "mlflow_bucketfs_testing.udf")
    with pytest.raises(UdfClientError, match="UDFs do not run on Windows: use Linux, macOS or WSL"):
        __import__("mlflow_bucketfs_testing.udf")


def test_a_result_without_rows_as_a_data_frame():
    """An empty result becomes a data frame with its columns."""
    result = UdfResult([], {}, ("a", "b"), output="", seconds=0.0)

    assert list(result.to_pandas().columns) == ["a", "b"]


def test_a_data_frame_without_pandas(monkeypatch):
    """The error has the command that installs pandas."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        UdfResult([], {}, ("a",), output="", seconds=0.0).to_pandas()
