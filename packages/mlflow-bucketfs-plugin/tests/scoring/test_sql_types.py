"""Parsing column types, and their compatibility with the types of a signature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.sql_types import (
    DEFAULTS,
    check_input_type,
    emitted_as,
    parse_sql_type,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("double precision", "DOUBLE"),
        ("float", "DOUBLE"),
        ("NUMBER", "DOUBLE"),
        ("int", "DECIMAL(18,0)"),
        ("BIGINT", "DECIMAL(36,0)"),
        ("decimal", "DECIMAL(18,0)"),
        ("dec ( 9 )", "DECIMAL(9,0)"),
        ("numeric(10 , 2)", "DECIMAL(10,2)"),
        ("bool", "BOOLEAN"),
        ("varchar(30)", "VARCHAR(30) UTF8"),
        ("VARCHAR (30)  ascii", "VARCHAR(30) ASCII"),
        ("char(3)", "CHAR(3) UTF8"),
        ("date", "DATE"),
        ("timestamp (6)", "TIMESTAMP(6)"),
    ],
)
def test_spellings(text, expected):
    """Exasol's synonyms are parsed, in any case and with any blanks."""
    assert str(parse_sql_type(text, "--key")) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("DECIMAL(37,0)", "1 to 36 digits"),
        ("DECIMAL(0,0)", "1 to 36 digits"),
        ("DECIMAL(5,6)", "not more decimals than digits"),
        ("VARCHAR(2000001)", "1 to 2,000,000 characters, not 2,000,001"),
        ("VARCHAR(0)", "1 to 2,000,000 characters"),
        ("CHAR(2001)", "1 to 2,000 characters"),
        ("VARCHAR", "is not a type"),
        ("STRING", "is not a type"),
        ("DOUBLE, x DOUBLE", "is not a type"),
        ("HASHTYPE(16 BYTE)", "CAST the column"),
        ("GEOMETRY", "CAST the column"),
        ("INTERVAL DAY TO SECOND", "CAST the column"),
        ("TIMESTAMP WITH LOCAL TIME ZONE", "CAST the column"),
        ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "CAST the column"),
    ],
)
def test_refused_types(text, reason):
    """An invalid type, or one that a UDF cannot have, is refused with a reason."""
    with pytest.raises(ScriptError, match=reason):
        parse_sql_type(text, "--type age")


@given(st.integers(1, 36).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p))))
def test_decimals_as_sql_are_parsed_back(digits):
    """A DECIMAL as SQL is parsed to the same type, with its decimals."""
    sql = parse_sql_type("decimal({}, {})".format(*digits), "")
    assert parse_sql_type(str(sql), "") == sql
    assert sql.scale == digits[1]
    assert sql.is_whole is (digits[1] == 0)


@pytest.mark.parametrize("value", DEFAULTS)
def test_defaults_fit(value):
    """The default type of each signature's type is accepted for inputs and for outputs."""
    sql = DEFAULTS[value]
    assert check_input_type(value, sql, "") == sql
    assert emitted_as(value, sql, "") == (value, sql)


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        ("long", "VARCHAR(20)", "is not compatible with long"),
        ("string", "DOUBLE", "is not compatible with string"),
        ("string", "CHAR(3)", "padded with blanks"),
        ("boolean", "DECIMAL(1,0)", "Possible: BOOLEAN"),
        ("datetime", "DECIMAL(18,0)", "is not compatible with datetime"),
        ("json", "CHAR(9)", "padded with blanks"),
    ],
)
def test_incompatible_types(value, text, reason):
    """A column's type that cannot be converted to the signature's type is refused."""
    with pytest.raises(ScriptError, match=reason):
        check_input_type(value, parse_sql_type(text, ""), "--type x")


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("double", "DECIMAL(10,0)", "long"),
        ("double", "DECIMAL(10,2)", "decimal"),
        ("uint64", "DECIMAL(36,0)", "uint64"),
        ("long", "DOUBLE", "double"),
        ("float", "DOUBLE", "float"),
        ("json", "VARCHAR(100)", "json"),
        (None, "DECIMAL(19,0)", "long"),
        (None, "DECIMAL(19,4)", "decimal"),
        (None, "DOUBLE", "double"),
        (None, "VARCHAR(10)", "string"),
        (None, "BOOLEAN", "boolean"),
        (None, "TIMESTAMP", "datetime"),
    ],
)
def test_how_outputs_are_emitted(value, text, expected):
    """The column's type decides as which type a prediction is emitted."""
    assert emitted_as(value, parse_sql_type(text, ""), "")[0] == expected


@pytest.mark.parametrize("text", ["DATE", "CHAR(3)"])
def test_outputs_that_cannot_be_emitted(text):
    """Types that predictions cannot have are refused, without a signature too."""
    with pytest.raises(ScriptError, match="CAST the column in the SELECT"):
        emitted_as(None, parse_sql_type(text, ""), "--output x")
