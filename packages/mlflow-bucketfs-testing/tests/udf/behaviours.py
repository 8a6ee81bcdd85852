"""The behaviour of Exasol's UDF client: the rows of the tables in docs/testing/udf-behaviour.md.

Each row has the code of a script, and the values that are then sent to the database. `EVIDENCE`
has the sources. A row holds for every version of pandas and numpy that the packages allow.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from math import inf, nan
from typing import Any, TypeAlias

EVIDENCE = {
    "M": "measured with Exasol's client, compiled from its source",
    "I": "inferred from its source and from Exasol's own tests",
}
OUTPUTS = (
    "DECIMAL(9,0)",
    "DECIMAL(18,0)",
    "DECIMAL(36,2)",
    "DOUBLE",
    "BOOLEAN",
    "VARCHAR(100)",
    "DATE",
    "TIMESTAMP",
)
"""The types of the output column, one for each way in which the client sends values."""

Outcome: TypeAlias = "list[Any] | str | tuple[list[Any], str]"
"""The values that are sent; or the error, as the number of Exasol's code or the name of a Python
exception without a code; or both, if the rows before the refused one are sent."""

_SMALL, _LONG, _NUMERIC, _DOUBLE, _BOOLEAN, _TEXT, _DATE, _TIMESTAMP = OUTPUTS


@dataclass(frozen=True)
class Emitted:
    """The outcome of emitting a value or data frame, by the type of the only output column.

    Attributes:
        code: the argument of ``ctx.emit``.
        sent: outcome by the type of the output column.
        otherwise: outcome for all other types.
        note: a warning for the reader.
        evidence: a key of `EVIDENCE`.
    """

    code: str
    sent: dict[str, Outcome]
    otherwise: Outcome
    note: str = ""
    evidence: str = "M"

    def outcome(self, output: str) -> Outcome:
        """Return the outcome for an output column of a type."""
        return self.sent.get(output, self.otherwise)


@dataclass(frozen=True)
class Read:
    """The values that a script reads from a column.

    Attributes:
        column: name and type of the parameter.
        value: value of the column.
        frames: dtype and first two values of ``ctx.get_dataframe("all")``, if all rows have the
            value, if some have it, and if none has it.
        row: ``repr`` of ``ctx["column"]``.
        evidence: a key of `EVIDENCE`.
    """

    column: str
    value: Any
    frames: tuple[str, str, str]
    row: str
    evidence: str = "M"


@dataclass(frozen=True)
class Step:
    """The outcome of a script that reads three rows of all columns of `READS`.

    Attributes:
        what: description of the behaviour.
        code: lines of Python.
        outcome: the values that are sent.
        outputs: types of the output columns.
        evidence: a key of `EVIDENCE`.
    """

    what: str
    code: str
    outcome: Outcome
    outputs: tuple[str, ...] = ("VARCHAR(2000)",)
    evidence: str = "M"


@dataclass(frozen=True)
class Script:
    """The outcome of a complete script that reads `SCRIPT_ROWS`.

    Attributes:
        what: description of the behaviour.
        head: the statement up to ``AS``.
        code: the script.
        outcome: the values that are sent; or the text that the SQL user sees.
        evidence: a key of `EVIDENCE`.
    """

    what: str
    head: str
    code: str
    outcome: list[Any] | str
    evidence: str = "M"


def _numbers(
    small: Outcome, long: Outcome, numeric: Outcome, double: Outcome
) -> dict[str, Outcome]:
    return {_SMALL: small, _LONG: long, _NUMERIC: numeric, _DOUBLE: double}


_IN_RUN = (
    "F-UDF-CL-LIB-1127: F-UDF-CL-SL-PYTHON-1002: F-UDF-CL-SL-PYTHON-1026: ExaUDFError: "
    "F-UDF-CL-SL-PYTHON-1114: Exception during run \n"
)
SCRIPT_ROWS = [(1.5, dt.date(2024, 2, 29)), (2.5, dt.date(2024, 2, 29))]
_SET_EMITS = "SET SCRIPT s(x DOUBLE, day DATE) EMITS (y VARCHAR(200))"
_SET_RETURNS = "SET SCRIPT s(x DOUBLE, day DATE) RETURNS DOUBLE"
_SCALAR_EMITS = "SCALAR SCRIPT s(x DOUBLE, day DATE) EMITS (y VARCHAR(200))"
_SCALAR_RETURNS = "SCALAR SCRIPT s(x DOUBLE, day DATE) RETURNS DOUBLE"

FRAMES = (
    Emitted(
        "frame(np.array([1, -2], 'int8'))",
        _numbers([1, -2], [1, -2], ["1", "-2"], [1.0, -2.0]),
        "1061",
    ),
    Emitted(
        "frame(np.array([1, -2], 'int16'))",
        _numbers([1, -2], [1, -2], ["1", "-2"], [1.0, -2.0]),
        "1060",
    ),
    Emitted(
        "frame(np.array([1, -2], 'int32'))",
        _numbers([1, -2], [1, -2], ["1", "-2"], [1.0, -2.0]),
        "1059",
    ),
    Emitted(
        "frame(np.array([1, -2], 'int64'))",
        _numbers([1, -2], [1, -2], ["1", "-2"], [1.0, -2.0]),
        "1058",
    ),
    Emitted(
        "frame(np.array([2**63 - 1, -(2**63)], 'int64'))",
        _numbers(
            "1074",
            [9223372036854775807, -9223372036854775808],
            ["9223372036854775807", "-9223372036854775808"],
            [9.223372036854776e18, -9.223372036854776e18],
        ),
        "1058",
    ),
    Emitted(
        "frame(np.array([2**53 + 1], 'int64'))",
        _numbers("1074", [9007199254740993], ["9007199254740993"], [9007199254740992.0]),
        "1058",
        "DOUBLE has 53 bits",
    ),
    Emitted("frame(np.array([100], 'uint8'))", _numbers([100], [100], ["100"], [100.0]), "1061"),
    Emitted(
        "frame(np.array([200], 'uint8'))",
        _numbers([-56], [-56], ["-56"], [-56.0]),
        "1061",
        "negative, silently",
    ),
    Emitted(
        "frame(np.array([40000], 'uint16'))",
        _numbers([-25536], [-25536], ["-25536"], [-25536.0]),
        "1060",
        "negative, silently",
    ),
    Emitted(
        "frame(np.array([3_000_000_000], 'uint32'))",
        _numbers([-1294967296], [-1294967296], ["-1294967296"], [-1294967296.0]),
        "1059",
        "negative, silently",
    ),
    Emitted(
        "frame(np.array([2**63 + 5], 'uint64'))",
        _numbers("1074", [-9223372036854775803], ["-9223372036854775803"], [-9.223372036854776e18]),
        "1058",
        "negative, silently",
    ),
    Emitted(
        "frame(np.array([1.5, -2.75], 'float16'))",
        _numbers([1, -2], [1, -2], ["1.500000", "-2.750000"], [1.5, -2.75]),
        "1063",
        "truncated, or six decimals as text",
    ),
    Emitted(
        "frame(np.array([1.5, -2.75], 'float32'))",
        _numbers([1, -2], [1, -2], ["1.500000", "-2.750000"], [1.5, -2.75]),
        "1063",
        "truncated, or six decimals as text",
    ),
    Emitted(
        "frame(np.array([1.5, -2.75], 'float64'))",
        _numbers([1, -2], [1, -2], ["1.500000", "-2.750000"], [1.5, -2.75]),
        "1062",
        "truncated, or six decimals as text",
    ),
    Emitted(
        "frame(np.array([1e20, 1e-9], 'float64'))",
        _numbers(
            "1074",
            [-9223372036854775808, 0],
            ["100000000000000000000.000000", "0.000000"],
            [1e20, 1e-09],
        ),
        "1062",
        "too large for 64 bits: -2^63, silently",
    ),
    Emitted(
        "frame(np.array([np.inf], 'float64'))",
        _numbers("1074", [-9223372036854775808], ["inf"], [inf]),
        "1062",
        "infinity: -2^63, silently",
    ),
    Emitted("frame(np.array([np.nan], 'float64'))", {}, [None], "NaN is NULL in every column"),
    Emitted("frame([True, False])", {_BOOLEAN: [True, False]}, "1065"),
    Emitted("frame(pd.array([True, None], 'boolean'))", {_BOOLEAN: [True, None]}, "1066"),
    Emitted("objects('x', None)", {_NUMERIC: ["x", None], _TEXT: ["x", None]}, "1070"),
    Emitted("objects('x', pd.NA)", {_NUMERIC: ["x", None], _TEXT: ["x", None]}, "1070"),
    Emitted(
        "objects('x', np.nan)",
        {_NUMERIC: (["x"], "1074"), _TEXT: (["x"], "1137")},
        "1070",
        "NaN is not NULL in a column of objects",
    ),
    Emitted(
        "objects(np.nan, 'x')",
        _numbers(([None], "1139"), ([None], "1139"), ["nan", "x"], ([nan], "1074")),
        "1140",
        "the first value decides how all are sent",
    ),
    Emitted(
        "frame(pd.array(['x', None], 'string'))",
        {_NUMERIC: ["x", None], _TEXT: ["x", None]},
        "1070",
    ),
    Emitted("objects('12', '13.5')", {_NUMERIC: ["12", "13.5"], _TEXT: ["12", "13.5"]}, "1070"),
    Emitted(
        "objects('ab\\0cd')",
        {_NUMERIC: ["ab"], _TEXT: ["ab"]},
        "1070",
        "truncated at the NUL, silently",
    ),
    Emitted("objects('äö€')", {_NUMERIC: ["äö€"], _TEXT: ["äö€"]}, "1070"),
    Emitted("objects('\\ud800')", {_NUMERIC: "1074", _TEXT: "1137"}, "1070"),
    Emitted("objects('')", {_NUMERIC: [""], _TEXT: [""]}, "1070"),
    Emitted(
        "objects(2**53 + 1)",
        _numbers("1074", [9007199254740993], ["9007199254740993"], [9007199254740992.0]),
        "1068",
    ),
    Emitted(
        "objects(2**64)",
        _numbers("1074", "1074", ["18446744073709551616"], [1.8446744073709552e19]),
        "1068",
    ),
    Emitted(
        "objects(10**35)",
        _numbers("1074", "1074", ["100000000000000000000000000000000000"], [1e35]),
        "1068",
    ),
    Emitted(
        "objects(5, None, pd.NA)",
        _numbers([5, None, None], [5, None, None], ["5", None, None], [5.0, None, None]),
        "1068",
    ),
    Emitted(
        "objects(5, 2.5)",
        _numbers(([5], "1074"), ([5], "1074"), ["5", "2.5"], [5.0, 2.5]),
        "1068",
        "the first value decides how all are sent",
    ),
    Emitted(
        "objects(5, float('nan'))",
        _numbers(([5], "1074"), ([5], "1074"), ["5", "nan"], [5.0, nan]),
        "1068",
    ),
    Emitted(
        "objects(5, True)",
        _numbers([5, 1], [5, 1], ["5", "True"], [5.0, 1.0]),
        "1068",
        "the first value decides how all are sent",
    ),
    Emitted(
        "objects(5, 'x')",
        _numbers(([5], "1074"), ([5], "1074"), ["5", "x"], ([5.0], "1067")),
        "1068",
    ),
    Emitted("objects(1.5)", _numbers([1], [1], ["1.5"], [1.5]), "1140", "truncated, silently"),
    Emitted(
        "objects(2.5, 5)",
        _numbers([2, 5], [2, 5], ["2.5", "5"], [2.5, 5.0]),
        "1140",
        "the first value decides how all are sent",
    ),
    Emitted(
        "objects(5.5, float('nan'))",
        _numbers([5, None], [5, None], ["5.5", "nan"], [5.5, nan]),
        "1140",
        "NaN is NULL in integer columns only",
    ),
    Emitted(
        "objects(float('inf'))",
        _numbers("1074", [-9223372036854775808], ["inf"], [inf]),
        "1140",
        "infinity: -2^63, silently",
    ),
    Emitted("objects(True, 5)", {_BOOLEAN: ([True], "1039")}, "1066"),
    Emitted(
        "objects(Decimal('1.50'), None)",
        _numbers([1, None], [1, None], ["1.50", None], [1.5, None]),
        "1069",
        "truncated, silently",
    ),
    Emitted("objects(Decimal('1E+2'))", _numbers([100], [100], ["1E+2"], [100.0]), "1069"),
    Emitted(
        "objects(Decimal('1.5'), 5)", _numbers([1, 5], [1, 5], ["1.5", "5"], [1.5, 5.0]), "1069"
    ),
    Emitted("objects(Decimal('NaN'))", _numbers("1130", "1130", ["NaN"], [nan]), "1069"),
    Emitted(
        "objects(Decimal('1.5'), 'x')",
        _numbers(([1], "1130"), ([1], "1130"), ["1.5", "x"], ([1.5], "1130")),
        "1069",
    ),
    Emitted("objects(datetime.date(2024, 2, 29), None)", {_DATE: ["2024-02-29", None]}, "1071"),
    Emitted("objects(datetime.datetime(2024, 2, 29, 1, 2, 3))", {}, "1056"),
    Emitted(
        "objects(pd.Timestamp('2024-02-29 01:02:03.123456789'), None)",
        {_TIMESTAMP: ["2024-02-29 01:02:03.123456789", None]},
        "1141",
    ),
    Emitted(
        "objects(pd.Timestamp('2024-02-29 01:02:03', tz='Europe/Berlin'))",
        {_TIMESTAMP: ["2024-02-29 01:02:03"]},
        "1141",
        "the zone is dropped, silently",
    ),
    Emitted(
        "objects(pd.Timestamp('2024-02-29'), pd.NaT)",
        {_TIMESTAMP: ["2024-02-29 00:00:00", "NaT"]},
        "1141",
        "NaT is not NULL in a column of objects",
    ),
    Emitted("objects(pd.NaT, pd.Timestamp('2024-02-29'))", {}, "1056"),
    Emitted(
        "frame(pd.to_datetime(['2024-02-29 01:02:03.5', None]).astype('datetime64[ns]'))",
        {_TIMESTAMP: ["2024-02-29 01:02:03.500000", None]},
        "1072",
    ),
    Emitted("frame(np.array(['2024-02-29'], 'datetime64[s]'))", {}, "1138"),
    Emitted("frame(np.array(['2024-02-29'], 'datetime64[us]'))", {}, "1138"),
    Emitted("frame(pd.to_datetime(['2024-02-29']).tz_localize('UTC'))", {}, "1138"),
    Emitted("frame(pd.to_timedelta([1], unit='s'))", {}, "1054"),
    Emitted("frame(pd.array([1, 2], 'Int64'))", {}, "1054"),
    Emitted("frame(pd.array([1.5], 'Float64'))", {}, "1054"),
    Emitted("frame(pd.Categorical(['x']))", {}, "1054"),
    Emitted("frame([1j])", {}, "1054"),
    Emitted("objects(np.int64(1))", {}, "1056"),
    Emitted("objects(np.float64(1.5))", {}, "1056"),
    Emitted("objects(np.bool_(True))", {}, "1056"),
    Emitted("objects(np.str_('x'))", {}, "1056"),
    Emitted("frame([[1, 2]])", {}, "1056"),
    Emitted("frame([b'x'])", {}, "1056"),
    Emitted("objects(None, None)", {}, [None, None]),
    Emitted("frame([])", {}, "1087"),
    Emitted("pd.DataFrame({'a': [1], 'b': [2]})", {}, "1088"),
    Emitted("type('Frame', (pd.DataFrame,), {})({'a': [1]})", {}, "ValueError"),
    Emitted("pd.Series([1])", {}, "ValueError"),
)

VALUES = (
    Emitted("None", {}, [None]),
    Emitted("1", _numbers([1], [1], ["1"], [1.0]), "1091"),
    Emitted(
        "2**40",
        _numbers("OverflowError", [1099511627776], ["1099511627776"], [1099511627776.0]),
        "1091",
    ),
    Emitted(
        "2**64",
        _numbers(
            "OverflowError", "OverflowError", ["18446744073709551616"], [1.8446744073709552e19]
        ),
        "1091",
    ),
    Emitted(
        "10**35",
        _numbers(
            "OverflowError", "OverflowError", ["100000000000000000000000000000000000"], [1e35]
        ),
        "1091",
    ),
    Emitted("True", {_BOOLEAN: [True]}, "1093"),
    Emitted(
        "1.5", _numbers([1], [1], "TypeError", [1.5]), "1092", "truncated; a bug in DECIMAL(p,s)"
    ),
    Emitted("float('nan')", _numbers("ValueError", "ValueError", "TypeError", [nan]), "1092"),
    Emitted("float('inf')", _numbers("OverflowError", "OverflowError", "TypeError", [inf]), "1092"),
    Emitted("1e20", _numbers("OverflowError", "OverflowError", "TypeError", [1e20]), "1092"),
    Emitted("'x'", {_TEXT: ["x"]}, "1094"),
    Emitted("'12'", {_TEXT: ["12"]}, "1094"),
    Emitted("''", {_TEXT: [""]}, "1094"),
    Emitted("'ab\\0cd'", {_TEXT: ["ab"]}, "1094", "truncated at the NUL, silently"),
    Emitted("'äö€'", {_TEXT: ["äö€"]}, "1094"),
    Emitted("'\\ud800'", {_TEXT: "TypeError"}, "1094"),
    Emitted("Decimal('1.50')", _numbers([1], [1], ["1.50"], [1.5]), "1095", "truncated, silently"),
    Emitted("Decimal('1E+2')", _numbers([100], [100], ["1E+2"], [100.0]), "1095"),
    Emitted("Decimal('NaN')", _numbers("ValueError", "ValueError", ["NaN"], [nan]), "1095"),
    Emitted("datetime.date(2024, 2, 29)", {_DATE: ["2024-02-29"]}, "1096"),
    Emitted(
        "datetime.datetime(2024, 2, 29, 1, 2, 3)", {_TIMESTAMP: ["2024-02-29 01:02:03"]}, "1097"
    ),
    Emitted(
        "datetime.datetime(2024, 2, 29, 1, 2, 3, 45)",
        {_TIMESTAMP: ["2024-02-29 01:02:03.000045"]},
        "1097",
    ),
    Emitted("np.int64(1)", {}, "1098"),
    Emitted("np.float64(1.5)", {}, "1098"),
    Emitted("np.bool_(True)", {}, "1098"),
    Emitted("np.str_('x')", {}, "1098"),
    Emitted("pd.Timestamp('2024-02-29')", {}, "1098"),
    Emitted("pd.NaT", {}, "1098"),
    Emitted("pd.NA", {}, "1098"),
    Emitted("b'x'", {}, "1098"),
    Emitted("[1]", {}, "1098"),
)

READS = (
    Read(
        "Small DECIMAL(9,0)",
        7,
        ("int64: [7, 7]", "float64: [7.0, nan]", "object: [None, None]"),
        "7",
    ),
    Read(
        "Long DECIMAL(18,0)",
        9007199254740993,
        (
            "int64: [9007199254740993, 9007199254740993]",
            "float64: [9007199254740992.0, nan]",
            "object: [None, None]",
        ),
        "9007199254740993",
    ),
    Read(
        "Key DECIMAL(36,0)",
        Decimal(12345678901234567890),
        (
            "object: [Decimal('12345678901234567890'), Decimal('12345678901234567890')]",
            "object: [Decimal('12345678901234567890'), None]",
            "object: [None, None]",
        ),
        "12345678901234567890",
    ),
    Read(
        "Price DECIMAL(10,2)",
        Decimal("1.50"),
        (
            "object: [Decimal('1.50'), Decimal('1.50')]",
            "object: [Decimal('1.50'), None]",
            "object: [None, None]",
        ),
        "Decimal('1.50')",
    ),
    Read(
        "X DOUBLE",
        1.5,
        ("float64: [1.5, 1.5]", "float64: [1.5, nan]", "object: [None, None]"),
        "1.5",
    ),
    Read(
        "Flag BOOLEAN",
        True,
        ("bool: [True, True]", "object: [True, None]", "object: [None, None]"),
        "True",
    ),
    Read(
        "Text VARCHAR(100)",
        "ab\x00cd",
        ("object: ['ab', 'ab']", "object: ['ab', None]", "object: [None, None]"),
        "'ab'",
    ),
    Read(
        "Fixed CHAR(5)",
        "ab",
        ("object: ['ab   ', 'ab   ']", "object: ['ab   ', None]", "object: [None, None]"),
        "'ab   '",
    ),
    Read(
        "Day DATE",
        dt.date(2024, 2, 29),
        (
            "object: [datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)]",
            "object: [datetime.date(2024, 2, 29), None]",
            "object: [None, None]",
        ),
        "datetime.date(2024, 2, 29)",
    ),
    Read(
        "At TIMESTAMP",
        dt.datetime(2024, 2, 29, 1, 2, 3, 500000),  # noqa: DTZ001 -- Exasol's have no zone
        (
            (
                "datetime64[ns]: [Timestamp('2024-02-29 01:02:03.500000'), Timestamp('2024-02-29 "
                "01:02:03.500000')]"
            ),
            "datetime64[ns]: [Timestamp('2024-02-29 01:02:03.500000'), NaT]",
            "object: [None, None]",
        ),
        "datetime.datetime(2024, 2, 29, 1, 2, 3, 500000)",
    ),
    Read(
        "Old TIMESTAMP",
        dt.datetime(1600, 1, 1),  # noqa: DTZ001
        (
            "object: [datetime.datetime(1600, 1, 1, 0, 0), datetime.datetime(1600, 1, 1, 0, 0)]",
            "object: [datetime.datetime(1600, 1, 1, 0, 0), None]",
            "object: [None, None]",
        ),
        "datetime.datetime(1600, 1, 1, 0, 0)",
    ),
    Read(
        "size DOUBLE",
        4.5,
        ("float64: [4.5, 4.5]", "float64: [4.5, nan]", "object: [None, None]"),
        "4.5",
    ),
)

STEPS = (
    Step(
        "labels are the parameters' names as written",
        "ctx.emit(repr(list(ctx.get_dataframe().columns)[:3]))",
        ["['behaviour', 'Small', 'Long']"],
    ),
    Step("one row by default", "ctx.emit(len(ctx.get_dataframe()).__repr__())", ["1"]),
    Step(
        "frames of two rows, of three: two, one, None once",
        "for _ in range(3):\n    frame = ctx.get_dataframe(2)\n"
        "    ctx.emit(repr(frame if frame is None else len(frame)))",
        ["2", "1", "None"],
    ),
    Step(
        "a frame after None",
        "while ctx.get_dataframe('all') is not None:\n    pass\nctx.get_dataframe()",
        "1106",
    ),
    Step("`ctx['X']` after the last frame", "ctx.get_dataframe('all')\nctx['X']", "1081"),
    Step("`ctx.X` after the last frame", "ctx.get_dataframe('all')\nctx.X", "1084"),
    Step(
        "`ctx['X']` after the first of several frames",
        "ctx.get_dataframe(2)\nctx.emit(repr(ctx['X']))",
        ["1.5"],
    ),
    Step(
        "`ctx.next()` after the last frame",
        "ctx.get_dataframe('all')\nctx.emit(repr(ctx.next()))",
        ["False"],
    ),
    Step(
        "`ctx.reset()` after the last frame",
        "ctx.get_dataframe('all')\nctx.emit(repr((ctx.reset(), len(ctx.get_dataframe('all')))))",
        ["(True, 3)"],
    ),
    Step(
        "frames from a column on",
        "ctx.emit(repr(list(ctx.get_dataframe(1, 11).columns)))",
        ["['Old', 'size']"],
    ),
    Step(
        "frames from behind the last column on",
        "ctx.emit(repr(ctx.get_dataframe('all', 13).shape))",
        ["(3, 0)"],
    ),
    Step("`num_rows=True`", "ctx.get_dataframe(True)", "1103"),
    Step("`num_rows` of numpy", "ctx.get_dataframe(np.int64(1))", "1103"),
    Step("`num_rows=0`", "ctx.get_dataframe(0)", "1103"),
    Step("`start_col=-1`", "ctx.get_dataframe(1, -1)", "1104"),
    Step("`start_col` too large", "ctx.get_dataframe(1, 14)", "1105"),
    Step(
        "a column by name, index and attribute",
        "ctx.emit(repr((ctx['X'], ctx[5], ctx.X)))",
        ["(1.5, 1.5, 1.5)"],
    ),
    Step("a column in another case", "ctx.x", "1085"),
    Step("a column that does not exist, by index", "ctx[14]", "1082"),
    Step(
        "a column named as a method",
        "ctx.emit(repr((callable(ctx.size), ctx['size'])))",
        ["(True, 4.5)"],
    ),
    Step(
        "`ctx.size()` and `ctx.next()`",
        "ctx.emit(repr((ctx.size(), ctx.next(), ctx.next(), ctx.next(), ctx.next())))",
        ["(3, True, True, False, False)"],
    ),
    Step("text with NUL, read", "ctx.emit(repr(ctx.Text))", ["'ab'"]),
    Step("too few values", "ctx.emit()", "1090"),
    Step("too many values", "ctx.emit('x', 'y')", "1090"),
    Step(
        "an id with floats",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 'y': [0.5]}))",
        [(9007199254740992, 0.5)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id as object with floats",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 'y': [0.5]}).astype({'id': object}))",
        [(9007199254740993, 0.5)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id with float32",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 'y': np.array([0.1], 'float32')}))",
        [(9007199254740992, 0.10000000149011612)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id with uint64",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 'y': np.array([1], 'uint64')}))",
        [(9007199254740992, 1.0)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id with integers",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 'y': np.array([1], 'int8')}))",
        [(9007199254740993, 1.0)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "a frame of plain Python values",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1, None], 'y': [0.5, None]}, dtype=object))",
        [(9007199254740993, 0.5), (None, None)],
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id in DataFrame.T of objects",
        "a = np.empty((2, 1), dtype=object)\na[0], a[1] = [2**53 + 1], [0.5]\n"
        "ctx.emit(pd.DataFrame(a.T))",
        [(9007199254740993, 0.5)],
        (_LONG, _DOUBLE),
    ),
    Step("one column too few", "ctx.emit(pd.DataFrame({'id': [1]}))", "1088", (_LONG, _DOUBLE)),
    Step("two values for two columns, one given", "ctx.emit(1)", "1089", (_LONG, _DOUBLE)),
    Step(
        "the row before the one that is refused",
        "ctx.emit(pd.DataFrame({'id': [1, 2**64], 'y': [0.5, 0.5]}, dtype=object))",
        ([(1, 0.5)], "1074"),
        (_LONG, _DOUBLE),
    ),
    Step(
        "an id with text",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 't': ['x']}))",
        [(9007199254740993, "x")],
        (_LONG, _TEXT),
    ),
    Step(
        "an id with a timestamp",
        "ctx.emit(pd.DataFrame({'id': [2**53 + 1], 't': "
        "pd.to_datetime(['2024-02-29']).astype('datetime64[ns]')}))",
        [(9007199254740993, "2024-02-29 00:00:00")],
        (_LONG, _TIMESTAMP),
    ),
)

SCRIPTS = (
    Script("SET RETURNS is called once", _SET_RETURNS, "def run(ctx):\n    return ctx.x", [1.5]),
    Script(
        "SCALAR RETURNS is called for each row",
        _SCALAR_RETURNS,
        "def run(ctx):\n    return ctx.x",
        [1.5, 2.5],
    ),
    Script(
        "SCALAR EMITS is called for each row",
        _SCALAR_EMITS,
        "def run(ctx):\n    ctx.emit(repr(ctx.x))",
        ["1.5", "2.5"],
    ),
    Script(
        "every frame in a SCALAR script is the current row",
        _SCALAR_EMITS,
        "def run(ctx):\n    for _ in range(2):\n"
        "        ctx.emit(repr(ctx.get_dataframe('all').x.tolist()))",
        ["[1.5]", "[1.5]", "[2.5]", "[2.5]"],
    ),
    Script(
        "`ctx.next` in a SCALAR script",
        _SCALAR_EMITS,
        "def run(ctx):\n    ctx.next()",
        _IN_RUN + "S:2 run\nRuntimeError: F-UDF-CL-SL-PYTHON-1107: "
        "next(), reset() and emit() functions are not allowed in scalar context\n",
    ),
    Script(
        "`ctx.emit` in a script that returns",
        _SET_RETURNS,
        "def run(ctx):\n    ctx.emit(1.0)",
        _IN_RUN + "S:2 run\nRuntimeError: F-UDF-CL-SL-PYTHON-1107: "
        "next(), reset() and emit() functions are not allowed in scalar context\n",
    ),
    Script(
        "the namespace",
        _SET_EMITS,
        "def run(ctx):\n"
        "    ctx.emit(repr((__name__, '__file__' in globals(), sys.argv, datetime.__name__)))",
        ["('builtins', False, [''], 'datetime')"],
    ),
    Script(
        "`from datetime import datetime`, then a DATE",
        _SET_EMITS,
        "from datetime import datetime\ndef run(ctx):\n    ctx.emit(repr(ctx.day))",
        _IN_RUN
        + "S:3 run\nAttributeError: type object 'datetime.datetime' has no attribute 'datetime'\n",
    ),
    Script(
        "`from datetime import datetime`, then a frame",
        _SET_EMITS,
        "from datetime import datetime\ndef run(ctx):\n"
        "    ctx.emit(repr(ctx.get_dataframe().day.tolist()))",
        ["[datetime.date(2024, 2, 29)]"],
    ),
    Script(
        "an error, its code and its traceback",
        _SET_EMITS,
        "def f():\n    raise ValueError('boom')\ndef run(ctx):\n    f()",
        _IN_RUN + "S:4 run\nS:2 f\nValueError: boom\n",
    ),
    Script(
        "an error without its cause",
        _SET_EMITS,
        "def run(ctx):\n    try:\n        1 / 0\n    except ZeroDivisionError:\n"
        "        raise ValueError('boom') from None",
        _IN_RUN + "S:5 run\nValueError: boom\n",
    ),
    Script(
        "`sys.exit`",
        _SET_EMITS,
        "def run(ctx):\n    sys.exit(3)",
        _IN_RUN + "S:2 run\nSystemExit: 3\n",
    ),
    Script(
        "an error when the script is loaded",
        _SET_EMITS,
        "1 / 0",
        "F-UDF-CL-LIB-1125: "
        "F-UDF-CL-SL-PYTHON-1000: "
        "F-UDF-CL-SL-PYTHON-1017: ExaUDFError: "
        "F-UDF-CL-SL-PYTHON-1122: Exception while parsing UDF \nS:1 <module>\n"
        "ZeroDivisionError: division by zero\n",
    ),
    Script(
        "no function `run`",
        _SET_EMITS,
        "x = 1",
        "F-UDF-CL-LIB-1127: "
        "F-UDF-CL-SL-PYTHON-1002: "
        "F-UDF-CL-SL-PYTHON-1026: RuntimeError: F-UDF-CL-SL-PYTHON-1110: function 'run' is "
        "not defined",
    ),
    Script(
        "`cleanup` is called at the end",
        _SET_EMITS,
        "def run(ctx):\n    ctx.emit('x')\ndef cleanup():\n    raise ValueError('too late')",
        "F-UDF-CL-LIB-1128: "
        "F-UDF-CL-SL-PYTHON-1001: "
        "F-UDF-CL-SL-PYTHON-1023: ExaUDFError: "
        "F-UDF-CL-SL-PYTHON-1109: Exception during cleanup \nS:4 cleanup\nValueError: too late\n",
    ),
    Script(
        "a value of numpy that is returned",
        _SET_RETURNS,
        "import numpy\ndef run(ctx):\n    return numpy.float64(ctx.x)",
        _IN_RUN + "RuntimeError: E-UDF-CL-SL-PYTHON-1098: data type <class 'numpy.float64'> is not "
        "supported\n",
    ),
    Script(
        "an exception's text with NUL",
        _SET_EMITS,
        "def run(ctx):\n    raise ValueError('be\\0hind')",
        _IN_RUN + "S:2 run\nValueError: be",
    ),
)
