"""Conversion of values to messages and back."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_testing import UdfError, UdfValueError
from mlflow_bucketfs_testing.udf.messages import ColumnType
from mlflow_bucketfs_testing.udf.script import ScriptColumn, SqlType
from mlflow_bucketfs_testing.udf.values import (
    python_columns,
    value_of_text,
    wire_column,
    wire_columns,
)

_INT = SqlType("DECIMAL", 18, 0)
_LONG = SqlType("DECIMAL", 36, 0)
_MONEY = SqlType("DECIMAL", 5, 2)
_DOUBLE = SqlType("DOUBLE")
_TEXT = SqlType("VARCHAR", size=3)
_CHAR = SqlType("CHAR", size=3)
_BOOLEAN = SqlType("BOOLEAN")
_DATE = SqlType("DATE")
_TIMESTAMP = SqlType("TIMESTAMP")


def _sent(value, sql, digits=(9, 18)):
    column = ScriptColumn("c", sql)
    wire = wire_column(column, int32_digits=digits[0], int64_digits=digits[1])
    return wire_columns([[value]], [column], [wire.type])[0][0]


def _received(value, sql):
    return python_columns([[value]], [ScriptColumn("c", sql)])[0][0]


def _decimals(precision, scale):
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda digits: Decimal(f"{digits}E-{scale}"))


_VALUES = (
    (_INT, st.integers(-(10**18) + 1, 10**18 - 1)),
    (_LONG, _decimals(36, 0)),
    (_MONEY, _decimals(5, 2)),
    (SqlType("DECIMAL", 36, 36), _decimals(36, 36)),
    (_DOUBLE, st.floats(allow_nan=False, allow_infinity=False)),
    (_BOOLEAN, st.booleans()),
    (_TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=3)),
    (_DATE, st.dates()),
    (_TIMESTAMP, st.datetimes()),
)
_TYPES_AND_VALUES = st.one_of(*(st.tuples(st.just(sql), values) for sql, values in _VALUES))
_TYPES_AND_COLUMNS = st.one_of(
    *(
        st.tuples(st.just(sql), st.lists(values) | st.lists(values | st.none()))
        for sql, values in _VALUES
    )
)


@given(_TYPES_AND_VALUES)
def test_values_round_trip(sql_and_value):
    """A value that fits its column is returned equal and with the same Python type; '' is NULL."""
    sql, value = sql_and_value
    expected = None if value == "" else value

    back = _received(_sent(value, sql), sql) if expected is not None else _sent(value, sql)

    assert back == expected
    assert type(back) is type(expected)


@given(_TYPES_AND_COLUMNS)
def test_a_column_is_converted_like_its_values(sql_and_values):
    """The fast path for columns gives the same result as the conversion of each value."""
    sql, values = sql_and_values
    column = ScriptColumn("c", sql)
    kind = wire_column(column, int32_digits=9, int64_digits=18).type

    (sent,) = wire_columns([values], [column], [kind])
    assert list(sent) == [_sent(value, sql) for value in values]
    (received,) = python_columns([sent], [column])
    assert list(received) == [None if cell is None else _received(cell, sql) for cell in sent]


@given(_TYPES_AND_VALUES)
def test_values_round_trip_through_csv(sql_and_value):
    """The text of a value in a CSV file is converted to that value, with all of its digits."""
    sql, value = sql_and_value
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)

    assert value_of_text(text, sql) == (None if value == "" else value)


@pytest.mark.parametrize(
    ("digits", "kind"),
    [
        (9, ColumnType.INT32),
        (10, ColumnType.INT64),
        (18, ColumnType.INT64),
        (19, ColumnType.NUMERIC),
    ],
)
def test_decimals_are_sent_by_their_digits(digits, kind):
    """DECIMAL(p,0) is INT32, INT64 or NUMERIC; the limits are arguments."""
    column = ScriptColumn("c", SqlType("DECIMAL", digits, 0))

    assert wire_column(column, int32_digits=9, int64_digits=18).type is kind
    assert wire_column(column, int32_digits=0, int64_digits=0).type is ColumnType.NUMERIC


@pytest.mark.parametrize(
    "value", [None, "", float("nan"), np.float32("nan"), Decimal("NaN"), pd.NA, pd.NaT]
)
@pytest.mark.parametrize("sql", [_INT, _LONG, _DOUBLE, _TEXT, _BOOLEAN, _DATE, _TIMESTAMP], ids=str)
def test_nulls(value, sql):
    """None, an empty text, NaN and the missing values of pandas are NULL."""
    assert _sent(value, sql) is None


@pytest.mark.parametrize(
    ("value", "sql", "wire"),
    [
        (np.int64(5), _INT, 5),
        (np.uint8(200), _LONG, "200"),
        (Decimal("5.00"), _INT, 5),
        (2.0, _INT, 2),
        (0.1, _MONEY, "0.10"),
        (np.float32(0.5), _MONEY, "0.50"),
        (1, _MONEY, "1.00"),
        (Decimal("1E+2"), _LONG, "100"),
        (1, _DOUBLE, 1.0),
        (np.float32(0.5), _DOUBLE, 0.5),
        (Decimal("0.5"), _DOUBLE, 0.5),
        (np.bool_(True), _BOOLEAN, True),
        (np.str_("ab"), _TEXT, "ab"),
        ("a", _CHAR, "a  "),
        (dt.datetime.fromisoformat("0001-02-03"), _DATE, "0001-02-03"),
        (pd.Timestamp("2020-01-02"), _DATE, "2020-01-02"),
        (dt.date(2020, 1, 2), _TIMESTAMP, "2020-01-02 00:00:00.000000"),
        (pd.Timestamp("2020-01-02 03:04:05.6"), _TIMESTAMP, "2020-01-02 03:04:05.600000"),
    ],
)
def test_other_types_that_fit(value, sql, wire):
    """Values of numpy, pandas and other types are sent if the column holds them exactly."""
    sent = _sent(value, sql)

    assert sent == wire
    assert type(sent) is type(wire)


@pytest.mark.parametrize(
    ("value", "sql", "reason"),
    [
        (10**18, _INT, "more than 18 digits before the point"),
        (1.5, _INT, "it is not a whole number"),
        (Decimal("1.5"), _LONG, "it is not a whole number"),
        (True, _INT, "it is a boolean"),
        ("1", _INT, "it is not a number but str"),
        (float("inf"), _LONG, "Exasol has no infinity"),
        (Decimal("Infinity"), _LONG, "Exasol has no infinity"),
        (Decimal("0.001"), _MONEY, "more than 2 digits after the point"),
        (1000, _MONEY, "more than 3 digits before the point"),
        (1, SqlType("DECIMAL", precision=2, scale=2), "it is not between -1 and 1"),
        (float("inf"), _DOUBLE, "Exasol has no infinity"),
        (Decimal("1E+400"), _DOUBLE, "Exasol has no infinity"),
        (True, _DOUBLE, "it is a boolean"),
        ("1", _DOUBLE, "it is not a number but str"),
        (1, _BOOLEAN, "it is not a boolean but int"),
        (1, _TEXT, "it is not a text but int"),
        ("abcd", _TEXT, "it has 4 characters"),
        ("\ud800", _TEXT, "the character '\\ud800' is not in its character set"),
        (
            "é",
            SqlType("VARCHAR", size=3, ascii=True),
            "the character '\\xe9' is not in its character set",
        ),
        ("2020-01-01", _DATE, "it is not a date but str"),
        (dt.datetime.fromisoformat("2020-01-01 01:00"), _DATE, "it has a time"),
        ("2020-01-01", _TIMESTAMP, "it is not a timestamp but str"),
        (dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), _TIMESTAMP, "it has a time zone"),
        (pd.Timestamp("2020-01-01 00:00:00.000000001"), _TIMESTAMP, "more than 6 digits"),
    ],
)
def test_values_that_do_not_fit(value, sql, reason):
    """The error has row, column, value, type and reason."""
    column = ScriptColumn("c", sql)
    kind = wire_column(column, int32_digits=9, int64_digits=18).type

    with pytest.raises(UdfValueError, match=re.escape(reason)) as caught:
        wire_columns([[None, value]], [column], [kind])

    assert str(caught.value).startswith(f"row 2, column c: {value!r} does not fit {sql}: ")


@pytest.mark.parametrize(
    ("text", "sql", "reason"),
    [
        ("x", _INT, "^it is not a number$"),
        ("1_0", _INT, "^it is not a number$"),
        ("x", _DOUBLE, "^it is not a number$"),
        ("1_0", _DOUBLE, "^it is not a number$"),
        ("maybe", _BOOLEAN, "^it is neither true nor false$"),
        ("1.1.2020", _DATE, "^it is not a date of the form YYYY-MM-DD$"),
        ("2023-02-29", _DATE, "^it is not a date of the form YYYY-MM-DD$"),
        ("now", _TIMESTAMP, "^it is not a timestamp of the form YYYY-MM-DD HH:MM:SS or "),
    ],
    ids=str,
)
def test_texts_that_are_not_values(text, sql, reason):
    """A field of a CSV file that is not a value of its column's type is an error."""
    with pytest.raises(ValueError, match=reason):
        value_of_text(text, sql)


@pytest.mark.parametrize(
    ("wire", "sql", "value"),
    [
        ("5", _LONG, Decimal(5)),
        ("1.500000", _LONG, Decimal("1.500000")),
        (5, _INT, 5),
        ("1.50", _MONEY, Decimal("1.50")),
        (float("nan"), _DOUBLE, None),
        ("", _TEXT, None),
        (
            "2020-01-02 03:04:05.123456789",
            _TIMESTAMP,
            dt.datetime.fromisoformat("2020-01-02 03:04:05.123456"),
        ),
        ("2020-01-02 00:00:00", _DATE, dt.date(2020, 1, 2)),
    ],
)
def test_emitted_values(wire, sql, value):
    """Emitted values are converted by the column's type; NaN and the empty text are NULL."""
    received = _received(wire, sql)

    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize(
    ("wire", "sql", "reason"),
    [
        ("abcd", _TEXT, "it has 4 characters"),
        ("x", _LONG, ": it is not a number$"),
        ("NaN", _LONG, ": it is not a number$"),
        ("1000", _MONEY, "more than 3 digits before the point"),
        (10**18, _INT, "more than 18 digits before the point"),
        ("soon", _DATE, ": it is not a date of the form YYYY-MM-DD$"),
        ("soon", _TIMESTAMP, ": it is not a timestamp of the form YYYY-MM-DD HH:MM:SS or "),
    ],
)
def test_emitted_values_that_do_not_fit(wire, sql, reason):
    """The error for an emitted value has row, column, value and type."""
    with pytest.raises(UdfError, match=reason) as caught:
        python_columns([[wire]], [ScriptColumn("y", sql)], first=7)

    assert str(caught.value).startswith(f"row 7, output column y: the script emitted {wire!r}, ")
