"""Parse ``CREATE SCRIPT``: names, columns with their SQL types, and the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from mlflow_bucketfs_testing.errors import UdfScriptError, is_about_udf

__tracebackhide__ = is_about_udf

TypeKind = Literal["DECIMAL", "DOUBLE", "BOOLEAN", "VARCHAR", "CHAR", "DATE", "TIMESTAMP"]
ScriptKind = Literal["SCALAR", "SET", "ADAPTER"]

RETURN_COLUMN = "RETURN"
"""Name of the output column of a script that RETURNS a value."""

_MAX_PRECISION = 36
_MAX_VARCHAR = 2_000_000
_MAX_CHAR = 2000
_MAX_TIMESTAMP_DIGITS = 9


@dataclass(frozen=True)
class SqlType:
    """A data type of Exasol.

    Attributes:
        kind: the type without its arguments; aliases are resolved.
        precision: digits of a DECIMAL; digits of a TIMESTAMP's seconds after the point, if given.
        scale: digits of a DECIMAL after the point.
        size: length in characters of VARCHAR and CHAR.
        ascii: whether VARCHAR and CHAR hold ASCII only.
    """

    kind: TypeKind
    precision: int | None = None
    scale: int | None = None
    size: int | None = None
    ascii: bool = False

    def __str__(self) -> str:
        """Return the type as Exasol spells it."""
        if self.kind == "DECIMAL":
            return f"DECIMAL({self.precision},{self.scale})"
        if self.size is not None:
            return f"{self.kind}({self.size}) {'ASCII' if self.ascii else 'UTF8'}"
        if self.precision is not None:
            return f"{self.kind}({self.precision})"
        return self.kind


@dataclass(frozen=True)
class ScriptColumn:
    """A parameter or an output column, with its name as written in the statement."""

    name: str
    type: SqlType


@dataclass(frozen=True)
class Script:
    """A parsed ``CREATE SCRIPT`` statement.

    Attributes:
        schema: the schema before the name; None if there is none.
        name: the script's name; upper case unless it is quoted.
        language: the alias of the language, such as ``PYTHON3``.
        kind: SCALAR (``run`` gets one row), SET (``run`` gets a group of rows) or ADAPTER.
        returns: whether it RETURNS a value; False if it EMITS rows.
        inputs: the parameters.
        outputs: the output columns; one for RETURNS.
        code: the code after AS, without the indentation of the statement.
    """

    schema: str | None
    name: str
    language: str
    kind: ScriptKind
    returns: bool
    inputs: tuple[ScriptColumn, ...]
    outputs: tuple[ScriptColumn, ...]
    code: str


def parse_script(text: str) -> Script:
    """Parse one ``CREATE SCRIPT`` statement.

    A line with only ``/`` ends the code, as in Exasol's clients. Without such a line, the code
    extends to the end of the text.

    Args:
        text: the statement.

    Raises:
        UdfScriptError: the statement cannot be parsed; the error has line and column.
    """
    return _Parser(text).script()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def keyword(self) -> str:
        """The token in upper case; empty for a quoted name."""
        return "" if self.kind == "quoted" else self.text.upper()


_SKIPPED = re.compile(r"(?:\s+|--[^\n]*|/\*.*?\*/)*", re.DOTALL)
_TOKEN = re.compile(
    r'(?P<quoted>"(?:[^"]|"")+")|(?P<word>[^\W\d]\w*)|(?P<number>\d+)|(?P<dots>\.\.\.)|(?P<mark>\S)'
)
_DECIMALS = {  # alias → precision
    "TINYINT": 3,
    "SMALLINT": 9,
    "SHORTINT": 9,
    "INT": 18,
    "INTEGER": 18,
    "BIGINT": 36,
}
_WITHOUT_ARGUMENTS: dict[str, TypeKind] = {
    "DOUBLE": "DOUBLE",
    "FLOAT": "DOUBLE",
    "REAL": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "BOOL": "BOOLEAN",
    "LOGICAL": "BOOLEAN",
    "DATE": "DATE",
}
_OTHER_LANGUAGES = ("JAVA", "LUA", "R")
_UNSUPPORTED_TYPES = ("GEOMETRY", "HASHTYPE", "INTERVAL")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._token = self._read(0)

    def script(self) -> Script:
        create = self._expect("CREATE")
        if self._accept("OR"):
            self._expect("REPLACE")
        language = self._language()
        kind = self._kind()
        self._expect("SCRIPT")
        if self._accept("IF"):
            self._expect("NOT")
            self._expect("EXISTS")
        schema, name = None, self._identifier("the script's name")
        if self._accept("."):
            schema, name = name, self._identifier("the script's name")
        inputs: tuple[ScriptColumn, ...] = ()
        outputs: tuple[ScriptColumn, ...] = ()
        returns = False
        if kind != "ADAPTER":
            inputs = self._columns("parameters", may_be_empty=True)
            returns = self._token.keyword == "RETURNS"
            outputs = self._outputs()
        code = self._code(create)
        return Script(schema, name, language, kind, returns, inputs, outputs, code)

    def _language(self) -> str:
        token = self._token
        if token.keyword in ("SCALAR", "SET", "ADAPTER", "SCRIPT"):
            self._fail(f"expected the language, such as PYTHON3, before {token.text}")
        language = self._identifier("the language, such as PYTHON3")
        if language in _OTHER_LANGUAGES:
            self._fail(f"the language {language} is not supported, only Python is", token)
        return language

    def _kind(self) -> ScriptKind:
        kinds: tuple[ScriptKind, ...] = ("SCALAR", "SET", "ADAPTER")
        for kind in kinds:
            if self._accept(kind):
                return kind
        return self._fail("expected SCALAR, SET or ADAPTER")

    def _outputs(self) -> tuple[ScriptColumn, ...]:
        if self._accept("RETURNS"):
            if self._token.keyword == "EMITS":
                self._fail("expected a type after RETURNS")
            return (ScriptColumn(RETURN_COLUMN, self._type()),)
        if not self._accept("EMITS"):
            self._fail("expected RETURNS or EMITS")
        return self._columns("output columns", may_be_empty=False)

    def _columns(self, what: str, *, may_be_empty: bool) -> tuple[ScriptColumn, ...]:
        self._expect("(")
        columns: list[ScriptColumn] = []
        if may_be_empty and self._accept(")"):
            return ()
        while True:
            self._refuse_dots(what)
            token = self._token
            name = self._identifier("a column's name", keep_case=True)
            if any(column.name == name for column in columns):
                self._fail(f"the column {name} exists already", token)
            columns.append(ScriptColumn(name, self._type()))
            if self._token.keyword == "ORDER":
                self._fail(
                    "ORDER BY is not supported: remove it, and pass the rows in this order instead"
                )
            if self._accept(")"):
                return tuple(columns)
            if not self._accept(","):
                self._fail("expected ',' or ')' after a column")

    def _refuse_dots(self, what: str) -> None:
        if self._token.kind == "dots":
            self._fail(
                f"... is not supported: the {what} and their types depend on the SQL statement "
                f"that calls the script, which does not exist here; list the {what}"
            )

    def _type(self) -> SqlType:
        token = self._token
        name = token.keyword
        if token.kind != "word":
            self._fail("expected a type")
        self._advance()
        if name in _DECIMALS:
            return SqlType("DECIMAL", _DECIMALS[name], 0)
        if name in ("DECIMAL", "DEC", "NUMERIC", "NUMBER"):
            return self._decimal(name, token)
        if name in _WITHOUT_ARGUMENTS:
            if name == "DOUBLE":
                self._accept("PRECISION")
            return SqlType(_WITHOUT_ARGUMENTS[name])
        if name == "TIMESTAMP":
            return self._timestamp(token)
        if name in _UNSUPPORTED_TYPES:
            self._fail(
                f"the type {name} is not supported: its encoding for the client is unknown", token
            )
        return self._text_type(name, token)

    def _decimal(self, name: str, token: _Token) -> SqlType:
        arguments = self._numbers(2)
        if not arguments and name == "NUMBER":
            return SqlType("DOUBLE")
        precision, scale = (*arguments, *(18, 0)[len(arguments) :])
        if not 1 <= precision <= _MAX_PRECISION or scale > precision:
            self._fail(
                f"{name}({precision},{scale}) does not exist: the precision of a DECIMAL is 1 to "
                f"{_MAX_PRECISION}, and its scale is not larger",
                token,
            )
        return SqlType("DECIMAL", precision, scale)

    def _timestamp(self, token: _Token) -> SqlType:
        arguments = self._numbers(1)
        if self._token.keyword == "WITH":
            self._fail("TIMESTAMP WITH LOCAL TIME ZONE is not supported: use TIMESTAMP", token)
        if not arguments:
            return SqlType("TIMESTAMP")
        if arguments[0] > _MAX_TIMESTAMP_DIGITS:
            self._fail(f"the precision of a TIMESTAMP is 0 to {_MAX_TIMESTAMP_DIGITS}", token)
        return SqlType("TIMESTAMP", precision=arguments[0])

    def _text_type(self, name: str, token: _Token) -> SqlType:
        varying = name in ("VARCHAR", "VARCHAR2", "NVARCHAR", "NVARCHAR2", "CLOB")
        if name in ("CHAR", "CHARACTER"):
            varying = self._accept("VARYING")
            if name == "CHARACTER" and self._accept("LARGE"):
                self._expect("OBJECT")
                name, varying = "CLOB", True
        elif name == "LONG":
            self._expect("VARCHAR")
            name, varying = "CLOB", True
        elif name != "NCHAR" and not varying:
            self._fail(f"{token.text} is not a type of Exasol", token)
        arguments = self._numbers(1)
        if not arguments and varying and name != "CLOB":
            self._fail(f"{token.text} needs a size, such as {token.text}(100)", token)
        size = arguments[0] if arguments else _MAX_VARCHAR if varying else 1
        largest = _MAX_VARCHAR if varying else _MAX_CHAR
        if not 1 <= size <= largest:
            self._fail(f"{token.text}({size}) does not exist: its size is 1 to {largest}", token)
        if self._accept("CHARACTER"):
            self._expect("SET")
        is_ascii = self._accept("ASCII")
        if not is_ascii:
            self._accept("UTF8")
        return SqlType("VARCHAR" if varying else "CHAR", size=size, ascii=is_ascii)

    def _numbers(self, most: int) -> list[int]:
        numbers: list[int] = []
        if not self._accept("("):
            return numbers
        while True:
            token = self._token
            if token.kind != "number":
                self._fail("expected a number")
            numbers.append(int(token.text))
            self._advance()
            if self._accept(")"):
                return numbers
            if len(numbers) == most or not self._accept(","):
                self._fail("expected ')'")

    def _code(self, create: _Token) -> str:
        token = self._expect("AS")
        start = token.start + len(token.text)
        rest_of_line = re.compile(r"[ \t\r]*\n").match(self._text, start)
        if rest_of_line:
            start = rest_of_line.end()
        lines = self._text[start:].splitlines(keepends=True)
        end = next((number for number, line in enumerate(lines) if line.strip() == "/"), None)
        code = lines[:end]
        if not "".join(code).strip():
            self._fail("expected the script's code after AS", token)
        if end is not None and "".join(lines[end + 1 :]).strip():
            after = start + sum(map(len, lines[: end + 1]))
            rest = _SKIPPED.match(self._text, after)
            position = rest.end() if rest else after
            if position < len(self._text):
                self._fail("only one statement is expected, and '/' ended it", at=position)
        line_start = self._text.rfind("\n", 0, create.start) + 1
        indentation = self._text[line_start : create.start]
        if indentation.strip():
            return "".join(code)
        return "".join(line.removeprefix(indentation) for line in code)

    # --- tokens ---

    def _read(self, position: int) -> _Token:
        skipped = _SKIPPED.match(self._text, position)
        start = skipped.end() if skipped else position
        found = _TOKEN.match(self._text, start)
        if found is None:
            return _Token("end", "", len(self._text))
        return _Token(found.lastgroup or "", found.group(), start)

    def _advance(self) -> _Token:
        token = self._token
        self._token = self._read(token.start + len(token.text))
        return token

    def _accept(self, keyword: str) -> bool:
        if self._token.keyword != keyword:
            return False
        self._advance()
        return True

    def _expect(self, keyword: str) -> _Token:
        if self._token.keyword != keyword:
            alone = ": the text must be one CREATE SCRIPT statement" if keyword == "CREATE" else ""
            self._fail(f"expected {keyword}{alone}")
        token = self._token
        if keyword != "AS":  # the text after AS is not SQL
            self._advance()
        return token

    def _identifier(self, what: str, *, keep_case: bool = False) -> str:
        token = self._token
        if token.kind == "quoted":
            self._advance()
            return token.text[1:-1].replace('""', '"')
        if token.kind != "word":
            self._fail(f"expected {what}")
        self._advance()
        return token.text if keep_case else token.text.upper()

    def _fail(self, message: str, token: _Token | None = None, at: int | None = None) -> NoReturn:
        if token is None and at is None:
            found = self._token.text or "the end of the text"
            if message.startswith("expected"):
                expected, colon, reason = message.partition(":")
                message = f"{expected}, found {found!r}{colon}{reason}"
        position = at if at is not None else (token or self._token).start
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1) + 1
        raise UdfScriptError(message, line=line, column=column)
