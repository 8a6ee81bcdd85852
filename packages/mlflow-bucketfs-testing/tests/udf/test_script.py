"""The parser of CREATE SCRIPT: valid statements, and errors with their position."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_testing import UdfScriptError
from mlflow_bucketfs_testing.udf.script import ScriptColumn, SqlType, parse_script

_CODE = "def run(ctx):\n    return 1\n"


def _types_of(columns):
    return [str(column.type) for column in columns]


def test_a_script_is_parsed():
    """Names, kind, columns and code are parsed; comments and the case of keywords are ignored."""
    script = parse_script(
        '-- scores\ncreate Or replace python3_mlflow SET script /* where */ s."my f""n" (\n'
        '  Id DECIMAL(36,0), -- the key\n  "a b" VARCHAR(10) ascii\n)\nEMITS (y DOUBLE) as\n'
        + _CODE
        + "/\n-- end\n"
    )

    assert (script.schema, script.name) == ("S", 'my f"n')
    assert (script.language, script.kind, script.returns) == ("PYTHON3_MLFLOW", "SET", False)
    assert script.inputs == (
        ScriptColumn("Id", SqlType("DECIMAL", 36, 0)),
        ScriptColumn("a b", SqlType("VARCHAR", size=10, ascii=True)),
    )
    assert script.outputs == (ScriptColumn("y", SqlType("DOUBLE")),)
    assert script.code == _CODE


def test_a_script_that_returns_has_one_output_column():
    """A statement may have no parameters, and no slash at its end."""
    script = parse_script(f"CREATE PYTHON3 SCALAR SCRIPT IF NOT EXISTS f() RETURNS INT AS {_CODE}")

    assert (script.kind, script.returns, script.inputs) == ("SCALAR", True, ())
    assert script.outputs == (ScriptColumn("RETURN", SqlType("DECIMAL", 18, 0)),)
    assert script.code == f" {_CODE}"


def test_an_adapter_script_has_no_columns():
    """The code of an adapter script follows its name."""
    script = parse_script(f"CREATE PYTHON3 ADAPTER SCRIPT a AS\n{_CODE}/")

    assert (script.kind, script.inputs, script.outputs, script.code) == ("ADAPTER", (), (), _CODE)


def test_the_indentation_of_the_statement_is_removed():
    """The code of an indented statement loses the indentation of the statement."""
    lines = ("", "CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS", "def run(ctx):", "", "  x", "/")
    text = "\n".join(line and f"    {line}" for line in lines)

    assert parse_script(text).code == "def run(ctx):\n\n  x\n"


def test_the_indentation_of_the_code_is_kept():
    """Indented code of a statement without indentation stays invalid, as in a database."""
    assert parse_script("CREATE PYTHON3 SCALAR SCRIPT f() RETURNS INT AS\n  x\n/").code == "  x\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("int", "DECIMAL(18,0)"),
        ("INTEGER", "DECIMAL(18,0)"),
        ("BIGINT", "DECIMAL(36,0)"),
        ("SMALLINT", "DECIMAL(9,0)"),
        ("TINYINT", "DECIMAL(3,0)"),
        ("DECIMAL", "DECIMAL(18,0)"),
        ("DEC(5)", "DECIMAL(5,0)"),
        ("NUMERIC ( 5 , 2 )", "DECIMAL(5,2)"),
        ("NUMBER", "DOUBLE"),
        ("NUMBER(4,1)", "DECIMAL(4,1)"),
        ("DOUBLE PRECISION", "DOUBLE"),
        ("FLOAT", "DOUBLE"),
        ("REAL", "DOUBLE"),
        ("BOOL", "BOOLEAN"),
        ("DATE", "DATE"),
        ("TIMESTAMP", "TIMESTAMP"),
        ("TIMESTAMP(6)", "TIMESTAMP(6)"),
        ("CHAR", "CHAR(1) UTF8"),
        ("CHAR(3) ASCII", "CHAR(3) ASCII"),
        ("NCHAR(3)", "CHAR(3) UTF8"),
        ("VARCHAR2(9) UTF8", "VARCHAR(9) UTF8"),
        ("CHAR VARYING(9)", "VARCHAR(9) UTF8"),
        ("CHARACTER VARYING (9) CHARACTER SET ASCII", "VARCHAR(9) ASCII"),
        ("CHARACTER LARGE OBJECT", "VARCHAR(2000000) UTF8"),
        ("CLOB(5)", "VARCHAR(5) UTF8"),
        ("LONG VARCHAR", "VARCHAR(2000000) UTF8"),
    ],
)
def test_types_and_their_aliases(text, name):
    """Every alias of a type is parsed as that type, in parameters and in output columns."""
    statement = f"CREATE PYTHON3 SET SCRIPT f(a {text}, b {text}) EMITS (c {text}) AS x"
    script = parse_script(statement)

    assert _types_of(script.inputs + script.outputs) == [name] * 3


_DECIMALS = st.integers(1, 36).flatmap(
    lambda precision: st.builds(
        SqlType, st.just("DECIMAL"), st.just(precision), st.integers(0, precision)
    )
)
_TYPES = st.one_of(
    _DECIMALS,
    st.builds(SqlType, st.sampled_from(["DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP"])),
    st.builds(SqlType, st.just("TIMESTAMP"), st.integers(0, 9)),
    st.builds(SqlType, st.just("VARCHAR"), size=st.integers(1, 2_000_000), ascii=st.booleans()),
    st.builds(SqlType, st.just("CHAR"), size=st.integers(1, 2000), ascii=st.booleans()),
)
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_COLUMNS = st.lists(
    st.builds(ScriptColumn, _NAMES, _TYPES), max_size=4, unique_by=lambda column: column.name
)


@given(_NAMES, _COLUMNS, _COLUMNS.filter(bool))
def test_quoted_names_and_printed_types_round_trip(name, inputs, outputs):
    """Any quoted name and any printed type are the same after parsing."""

    def quoted(text):
        return '"{}"'.format(text.replace('"', '""'))

    def listed(columns):
        return ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)

    script = parse_script(
        f"CREATE PYTHON3 SET SCRIPT {quoted(name)}({listed(inputs)}) EMITS ({listed(outputs)}) AS x"
    )

    assert script.name == name
    assert (list(script.inputs), list(script.outputs)) == (inputs, outputs)


@given(
    st.text(alphabet=st.sampled_from(list("CREATE OR SCRIPT f(x INT) AS\n.\"',/-*")), max_size=60)
)
def test_any_text_is_parsed_or_refused(text):
    """For any text, the parser returns a script or raises its own error."""
    try:
        parse_script(text)
    except UdfScriptError as error:
        assert error.line >= 1  # noqa: PT017 -- not every text is refused
        assert error.column >= 1  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "expected CREATE, found 'the end of the text'"),
        ("SELECT 1", 1, 1, "expected CREATE, found 'SELECT'"),
        ("CREATE SET SCRIPT f", 1, 8, "expected the language, such as PYTHON3, before SET"),
        ("CREATE LUA SET SCRIPT f", 1, 8, "the language LUA is not supported"),
        ("CREATE PYTHON3 SCRIPT f", 1, 16, "expected SCALAR, SET or ADAPTER"),
        ("CREATE PYTHON3 SET SCRIPT 1", 1, 27, "expected the script's name"),
        ("CREATE PYTHON3 SET SCRIPT f(...)", 1, 29, "... is not supported: the parameters"),
        ("CREATE PYTHON3 SET SCRIPT f(a INT,\n ...)", 2, 2, "list the parameters"),
        ("CREATE PYTHON3 SET SCRIPT f() EMITS (...)", 1, 38, "list the output columns"),
        ("CREATE PYTHON3 SET SCRIPT f(a)", 1, 30, "expected a type, found ')'"),
        ("CREATE PYTHON3 SET SCRIPT f(\n  a TEXT)", 2, 5, "TEXT is not a type of Exasol"),
        ("CREATE PYTHON3 SET SCRIPT f(a VARCHAR)", 1, 31, "VARCHAR needs a size"),
        ("CREATE PYTHON3 SET SCRIPT f(a VARCHAR(0))", 1, 31, "its size is 1 to 2000000"),
        ("CREATE PYTHON3 SET SCRIPT f(a CHAR(2001))", 1, 31, "its size is 1 to 2000"),
        (
            "CREATE PYTHON3 SET SCRIPT f(a DECIMAL(37))",
            1,
            31,
            "the precision of a DECIMAL is 1 to 36",
        ),
        ("CREATE PYTHON3 SET SCRIPT f(a DECIMAL(3,4))", 1, 31, "DECIMAL(3,4) does not exist"),
        ("CREATE PYTHON3 SET SCRIPT f(a DECIMAL(x))", 1, 39, "expected a number, found 'x'"),
        ("CREATE PYTHON3 SET SCRIPT f(a DECIMAL(1,2,3))", 1, 42, "expected ')', found ','"),
        (
            "CREATE PYTHON3 SET SCRIPT f(a TIMESTAMP(10))",
            1,
            31,
            "the precision of a TIMESTAMP is 0 to 9",
        ),
        ("CREATE PYTHON3 SET SCRIPT f(a TIMESTAMP WITH", 1, 31, "use TIMESTAMP"),
        ("CREATE PYTHON3 SET SCRIPT f(a HASHTYPE)", 1, 31, "the type HASHTYPE is not supported"),
        ("CREATE PYTHON3 SET SCRIPT f(a INT a INT)", 1, 35, "expected ',' or ')' after a column"),
        ("CREATE PYTHON3 SET SCRIPT f(a INT, a INT)", 1, 36, "the column a exists already"),
        ("CREATE PYTHON3 SET SCRIPT f(a INT ORDER BY a)", 1, 35, "ORDER BY is not supported"),
        ("CREATE PYTHON3 SET SCRIPT f(a INT) AS", 1, 36, "expected RETURNS or EMITS"),
        ("CREATE PYTHON3 SET SCRIPT f() EMITS ()", 1, 38, "expected a column's name, found ')'"),
        ("CREATE PYTHON3 SET SCRIPT f() RETURNS INT\n", 2, 1, "expected AS, found 'the end"),
        ("CREATE PYTHON3 SET SCRIPT f() RETURNS INT AS\n\n/", 1, 43, "expected the script's code"),
        (
            "CREATE PYTHON3 SET SCRIPT f() RETURNS INT AS\nx\n/\n-- next\nSELECT 1",
            5,
            1,
            "only one statement is expected, and '/' ended it",
        ),
    ],
)
def test_errors_have_a_position(text, line, column, message):
    """The error has the expected text, and the line and column of the text found instead."""
    with pytest.raises(UdfScriptError, match=re.escape(message)) as caught:
        parse_script(text)

    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"line {line}, column {column}: ")
