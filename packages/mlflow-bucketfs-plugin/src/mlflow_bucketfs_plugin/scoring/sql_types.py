"""Parse Exasol's column types, and choose them for the types of MLflow's signatures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlflow_bucketfs_plugin.scoring import ScriptError

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin.scoring.spec import ValueType

Kind = Literal["BOOLEAN", "CHAR", "DATE", "DECIMAL", "DOUBLE", "TIMESTAMP", "VARCHAR"]

_MOST_DIGITS = 36
_LONGEST = {"VARCHAR": 2_000_000, "CHAR": 2_000}
_SYNONYMS = {
    "BOOL": "BOOLEAN",
    "INT": "DECIMAL(18,0)",
    "INTEGER": "DECIMAL(18,0)",
    "BIGINT": "DECIMAL(36,0)",
    "SMALLINT": "DECIMAL(9,0)",
    "TINYINT": "DECIMAL(3,0)",
    "DECIMAL": "DECIMAL(18,0)",
    "FLOAT": "DOUBLE",
    "REAL": "DOUBLE",
    "NUMBER": "DOUBLE",
    "DOUBLE PRECISION": "DOUBLE",
    "CHAR": "CHAR(1)",
}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|DEC|NUMBER) ?\( ?(\d{1,3}) ?(?:, ?(\d{1,3}) ?)?\)")
_TEXT = re.compile(r"(VARCHAR|CHAR) ?\( ?(\d{1,8}) ?\)(?: (UTF8|ASCII))?")
_TIMESTAMP = re.compile(r"TIMESTAMP(?: ?\( ?[0-9] ?\))?")
_UNSUPPORTED = re.compile(r"(INTERVAL|GEOMETRY|HASHTYPE|TIMESTAMP ?(\(.*\))? ?WITH LOCAL)\b")
_KNOWN = "BOOLEAN, DECIMAL(p,s), DOUBLE, VARCHAR(n), CHAR(n), DATE and TIMESTAMP"


@dataclass(frozen=True, kw_only=True)
class SqlType:
    """A column's type.

    Attributes:
        kind: its name without size.
        text: the type as SQL.
        scale: decimals of a DECIMAL.
    """

    kind: Kind
    text: str
    scale: int = 0

    def __str__(self) -> str:
        return self.text

    @property
    def is_whole(self) -> bool:
        """Whether it is a DECIMAL without decimals."""
        return self.kind == "DECIMAL" and self.scale == 0


def parse_sql_type(text: str, what: str, *, remedy: str = "") -> SqlType:
    """Parse a column's type, such as ``varchar(30)``.

    Args:
        text: the type, or one of Exasol's synonyms for it.
        what: the type's option, for messages.
        remedy: a sentence to add to the message if it is not a type.

    Raises:
        ScriptError: it is not a type, or not one that a UDF can have.
    """
    written = " ".join(text.upper().split())
    written = _SYNONYMS.get(written, written)
    for kind in ("BOOLEAN", "DOUBLE", "DATE"):
        if written == kind:
            return SqlType(kind=kind, text=kind)
    if match := _DECIMAL.fullmatch(written):
        return _decimal(int(match[1]), int(match[2] or 0), text, what)
    if match := _TEXT.fullmatch(written):
        return _text(match[1], int(match[2]), match[3] or "UTF8", what)
    if _TIMESTAMP.fullmatch(written):
        return SqlType(kind="TIMESTAMP", text=written.replace(" ", ""))
    if _UNSUPPORTED.match(written):
        raise ScriptError(
            f"{what}: a script cannot have the type {text.strip()}. Declare a VARCHAR or "
            "TIMESTAMP, and CAST the column in the SELECT."
        )
    message = f"{what}: {text.strip()!r} is not a type. The types are {_KNOWN}."
    raise ScriptError(f"{message} {remedy}".rstrip())


def _decimal(precision: int, scale: int, text: str, what: str) -> SqlType:
    if not 1 <= precision <= _MOST_DIGITS or scale > precision:
        raise ScriptError(
            f"{what}: there is no {text.strip()}: a DECIMAL has 1 to {_MOST_DIGITS} digits, and "
            "not more decimals than digits."
        )
    return SqlType(kind="DECIMAL", text=f"DECIMAL({precision},{scale})", scale=scale)


def _text(kind: str, size: int, encoding: str, what: str) -> SqlType:
    if not 1 <= size <= _LONGEST[kind]:
        raise ScriptError(f"{what}: a {kind} has 1 to {_LONGEST[kind]:,} characters, not {size:,}.")
    text = f"{kind}({size}) {encoding}"
    if kind == "CHAR":
        return SqlType(kind="CHAR", text=text)
    return SqlType(kind="VARCHAR", text=text)


BOOLEAN = SqlType(kind="BOOLEAN", text="BOOLEAN")
DOUBLE = SqlType(kind="DOUBLE", text="DOUBLE")
TIMESTAMP = SqlType(kind="TIMESTAMP", text="TIMESTAMP")
LONG_TEXT = SqlType(kind="VARCHAR", text="VARCHAR(2000000) UTF8")
# Holds any id: Exasol's client delivers it as a Decimal, with all its digits
EXACT_ID = SqlType(kind="DECIMAL", text="DECIMAL(36,0)")

DEFAULTS: dict[ValueType, SqlType] = {
    "boolean": BOOLEAN,
    "integer": SqlType(kind="DECIMAL", text="DECIMAL(10,0)"),
    "long": SqlType(kind="DECIMAL", text="DECIMAL(19,0)"),
    "uint64": SqlType(kind="DECIMAL", text="DECIMAL(20,0)"),
    "float": DOUBLE,
    "double": DOUBLE,
    "string": LONG_TEXT,
    "datetime": TIMESTAMP,
    "json": LONG_TEXT,
}

# Column types that the script's code can convert to a type of the signature
_ACCEPTED: dict[ValueType, tuple[Kind, ...]] = {
    "boolean": ("BOOLEAN",),
    "integer": ("DECIMAL", "DOUBLE"),
    "long": ("DECIMAL", "DOUBLE"),
    "uint64": ("DECIMAL", "DOUBLE"),
    "float": ("DOUBLE", "DECIMAL"),
    "double": ("DOUBLE", "DECIMAL"),
    "string": ("VARCHAR",),
    "datetime": ("TIMESTAMP", "DATE", "VARCHAR"),
    "json": ("VARCHAR",),
}
# Column types in which the script's code can emit a type of the signature
_EMITTED: dict[ValueType, tuple[Kind, ...]] = {
    **_ACCEPTED,
    "datetime": ("TIMESTAMP",),
}


def check_input_type(value: ValueType, sql: SqlType, what: str) -> SqlType:
    """Return a parameter's requested type if it can be converted to the signature's type.

    Raises:
        ScriptError: it cannot be converted.
    """
    _check_kind(value, sql, _ACCEPTED[value], what)
    return sql


def _check_kind(value: ValueType, sql: SqlType, possible: tuple[Kind, ...], what: str) -> None:
    if sql.kind in possible:
        return
    reason = ""
    if sql.kind == "CHAR" and "VARCHAR" in possible:
        reason = " A CHAR is padded with blanks, which changes the text."
    raise ScriptError(
        f"{what}: {sql} is not compatible with {value} in the model's signature. "
        f"Possible: {', '.join(possible)}.{reason}"
    )


def emitted_as(
    value: ValueType | None, sql: SqlType, what: str
) -> tuple[ValueType | Literal["decimal"], SqlType]:
    """Return the type as which the script's code emits an output, and the column's type.

    Args:
        value: the type in the signature; ``None`` if unknown, then the column's type decides.
        sql: the column's requested type.
        what: the type's option, for messages.

    Raises:
        ScriptError: predictions cannot be emitted in such a column.
    """
    if value is not None:
        _check_kind(value, sql, _EMITTED[value], what)
    if sql.kind == "DECIMAL":
        if sql.scale:
            return "decimal", sql
        return (value if value in {"integer", "long", "uint64"} else "long"), sql
    if sql.kind == "DOUBLE":
        return (value if value in {"float", "double"} else "double"), sql
    if sql.kind == "VARCHAR":
        return value or "string", sql
    if sql.kind == "BOOLEAN":
        return "boolean", sql
    if sql.kind == "TIMESTAMP":
        return "datetime", sql
    raise ScriptError(
        f"{what}: predictions cannot be emitted as {sql}. Declare a VARCHAR or TIMESTAMP, and CAST "
        "the column in the SELECT."
    )
