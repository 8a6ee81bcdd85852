"""A double of an Exasol server, for the part of its WebSocket protocol that the deployments use.

It has one user, schemas, scripts and views with transactions. SQLite executes queries of the
catalogue and of tables; a function runs the scripts. The login is as in Exasol: the client encrypts
the password with an RSA key of the server.

The double accepts only the SQL that the deployments send; other statements are syntax errors. It
checks the use of the protocol and the order of the statements. It cannot check that a real database
accepts the statements: see docs/user/deployments.md.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from mlflow_bucketfs_testing.server.tls import Certificate
from mlflow_bucketfs_testing.udf.script import Script, parse_script
from typing_extensions import Self
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

PASSWORD = "the database's password"
USER = "DEPLOYER"

Rows = list[tuple[Any, ...]]
RunScript = Callable[[str, Rows], Rows]
"""Runs a script, given as its CREATE statement, on rows."""

_NAME = r'(?:[A-Za-z_][A-Za-z0-9_]*|"(?:[^"]|"")+")'
_OBJECT = rf"(?P<schema>{_NAME})\.(?P<name>{_NAME})"
_CREATE_SCRIPT = re.compile(
    rf"CREATE (?P<replace>OR REPLACE )?(?P<language>\w+) (?:SET|SCALAR) SCRIPT {_OBJECT}\s*\("
)
_CREATE_VIEW = re.compile(rf"CREATE (?P<replace>OR REPLACE )?VIEW {_OBJECT} AS\s", re.DOTALL)
_DROP = re.compile(rf"DROP (?P<kind>SCRIPT|VIEW) (?P<exists>IF EXISTS )?{_OBJECT}")
_CALL = re.compile(
    rf"SELECT {_OBJECT}\((?P<arguments>.*?)\)\s*"
    r"(?:FROM\s+(?P<source>.+?)\s+GROUP BY IPROC\(\))?",
    re.DOTALL,
)
_VALUES = re.compile(r"\(VALUES(?P<rows>.*)\) AS ROWS_TO_SCORE\((?P<names>[C\d, ]+)\)", re.DOTALL)
_CAST = re.compile(r"CAST\((?P<value>[^()]+?) AS (?P<type>[A-Z]+(?:\([\d, ]+\))?(?: UTF8)?)\)")


class _SqlError(Exception):
    """Error for a statement that is refused, with its SQL state."""

    def __init__(self, text: str, code: str = "42000") -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Catalog:
    """The content of the database; each session changes its own copy until it commits.

    Attributes:
        schemas: names of schemas.
        scripts: text of each script by schema and name, as in the catalogue.
        views: the same for views.
        languages: the parameter SCRIPT_LANGUAGES of the session.
        tables: column names and rows of each table in ``ML``, by its name.
    """

    schemas: set[str] = field(default_factory=lambda: {"ML"})
    scripts: dict[tuple[str, str], str] = field(default_factory=dict)
    views: dict[tuple[str, str], str] = field(default_factory=dict)
    languages: str = (
        "R=builtin_r JAVA=builtin_java PYTHON3=builtin_python3 "
        "PYTHON3_MLFLOW=localzmq+protobuf:///bfsdefault/default/slc?lang=python"
        "#buckets/bfsdefault/default/slc/exaudf/exaudfclient"
    )
    tables: dict[str, tuple[Sequence[str], Rows]] = field(default_factory=dict)


class ExasolDouble:
    """The double, on a free port of the loopback interface, with TLS; a context manager.

    Args:
        run_script: runs scripts.
        certificate: the server's certificate.

    Attributes:
        catalog: the committed content.
        refused: pattern of statements for which the user has no privilege, or None.
        closes_after: pattern of statements after which the connection is closed, or None.
        statements: statements that were received, in all sessions.
        logins: names and passwords of all attempted logins.
    """

    def __init__(self, run_script: RunScript, certificate: Certificate) -> None:
        self.catalog = Catalog()
        self.refused: str | None = None
        self.closes_after: str | None = None
        self.statements: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self._run_script = run_script
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        context = certificate.server_context()
        self._server: Server = serve(self._serve, "127.0.0.1", 0, ssl=context, close_timeout=0.5)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The server's port."""
        return int(self._server.socket.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def _serve(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            if not self._login(connection):
                return
            session = _Session(copy.deepcopy(self.catalog), self._run_script)
            while True:
                request = json.loads(connection.recv())
                if request["command"] == "disconnect":
                    _answer(connection)
                    return
                if request["command"] in {"getAttributes", "setAttributes"}:
                    _answer(connection, attributes={"autocommit": False, "currentSchema": ""})
                    continue
                statement = request["sqlText"]
                self.statements.append(statement)
                if self.refused and re.search(self.refused, statement):
                    _refuse(connection, "insufficient privileges", "42500")
                    continue
                try:
                    columns, rows = self._execute(session, statement)
                except _SqlError as error:
                    _refuse(connection, str(error), error.code)
                    continue
                if self.closes_after and re.search(self.closes_after, statement):
                    connection.socket.close()
                    return
                _answer(connection, data={"numResults": 1, "results": [_result(columns, rows)]})

    def _login(self, connection: ServerConnection) -> bool:
        if json.loads(connection.recv())["command"] != "login":
            return False  # the client rejects the certificate
        public = self._key.public_key()
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
        ).decode()
        _answer(connection, data={"publicKeyPem": pem})
        request = json.loads(connection.recv())
        encrypted = base64.b64decode(request["password"])
        password = self._key.decrypt(encrypted, padding.PKCS1v15()).decode()
        self.logins.append((request["username"], password))
        if (request["username"].upper(), password) != (USER, PASSWORD):
            _refuse(connection, "Connection exception - authentication failed.", "08004")
            return False
        _answer(
            connection,
            data={"sessionId": 1, "protocolVersion": 3, "releaseVersion": "8.31.0"},
        )
        return True

    def _execute(self, session: _Session, statement: str) -> tuple[list[dict[str, Any]], Rows]:
        if statement == "COMMIT":
            self.catalog = copy.deepcopy(session.catalog)
            return [], []
        if statement == "ROLLBACK":
            session.catalog = copy.deepcopy(self.catalog)
            return [], []
        return session.execute(statement)


class _Session:
    def __init__(self, catalog: Catalog, run_script: RunScript) -> None:
        self.catalog = catalog
        self._run_script = run_script

    def execute(self, statement: str) -> tuple[list[dict[str, Any]], Rows]:
        if match := _CREATE_SCRIPT.match(statement):
            self._create(match, statement, self.catalog.scripts)
            return [], []
        if match := _CREATE_VIEW.match(statement):
            self._create(match, statement, self.catalog.views)
            return [], []
        if match := _DROP.fullmatch(statement):
            self._drop(match)
            return [], []
        if match := _CALL.fullmatch(statement):
            return self._call(match)
        if statement.startswith("SELECT "):
            return self._select(statement)
        raise _SqlError(f"syntax error near {statement[:20]!r}")

    def _create(
        self, match: re.Match[str], statement: str, kept: dict[tuple[str, str], str]
    ) -> None:
        key = self._key(match)
        others = self.catalog.views if kept is self.catalog.scripts else self.catalog.scripts
        if key in others or (key in kept and not match["replace"]):
            raise _SqlError(f"object {key[1]} already exists")
        language = match.groupdict().get("language")
        if language and f" {language}=" not in f" {self.catalog.languages}":
            raise _SqlError(f"syntax error, unexpected IDENTIFIER_PART_, {language}")
        # as in the catalogue, without OR REPLACE
        kept[key] = statement.replace("CREATE OR REPLACE ", "CREATE ", 1)

    def _drop(self, match: re.Match[str]) -> None:
        kept = self.catalog.scripts if match["kind"] == "SCRIPT" else self.catalog.views
        if kept.pop(self._key(match), None) is None and not match["exists"]:
            raise _SqlError(f"{match['kind']} {match['name']} not found")

    def _call(self, match: re.Match[str]) -> tuple[list[dict[str, Any]], Rows]:
        key = self._key(match)
        if key not in self.catalog.scripts:
            raise _SqlError(f"function or script {match['name']} not found")
        text = self.catalog.scripts[key]
        script = parse_script(text)
        source = f" FROM {match['source']}" if match["source"] else ""
        rows: Rows = [()]
        if match["arguments"]:
            _, rows = self._select(f"SELECT {match['arguments']}{source}")
        try:
            emitted = self._run_script(text, [_typed(row, script) for row in rows])
        except Exception as error:
            raise _SqlError(f"VM error: {error}", "22002") from error
        return _columns(script), emitted

    def _select(self, statement: str) -> tuple[list[dict[str, Any]], Rows]:
        with closing(sqlite3.connect(":memory:")) as tables:
            tables.execute("ATTACH ':memory:' AS SYS")
            tables.execute("ATTACH ':memory:' AS ML")
            for conversion in ("TO_CHAR", "TO_DATE", "TO_TIMESTAMP"):
                tables.create_function(conversion, 2, lambda text, _: text)
            for name, columns, rows in self._catalogue():
                marks = ", ".join("?" * len(columns))
                tables.execute(f"CREATE TABLE SYS.{name} ({', '.join(columns)})")
                tables.executemany(f"INSERT INTO SYS.{name} VALUES ({marks})", rows)  # noqa: S608
            for name, (columns, rows) in self.catalog.tables.items():
                marks = ", ".join("?" * len(columns))
                quoted = ", ".join(f'"{column}"' for column in columns)
                tables.execute(f'CREATE TABLE ML."{name}" ({quoted})')
                tables.executemany(f'INSERT INTO ML."{name}" VALUES ({marks})', rows)  # noqa: S608
            try:
                # without CAST, because SQLite would round numbers of more than 64 bits
                statement = _VALUES.sub(_named_values, statement)
                found = tables.execute(_CAST.sub(lambda match: match["value"], statement))
            except sqlite3.Error as error:
                raise _SqlError(f"{error} in {statement!r}") from error
            names = [column[0] for column in found.description]
            text = {"type": "VARCHAR", "size": 2000000, "characterSet": "UTF8"}
            return [{"name": name, "dataType": text} for name in names], found.fetchall()

    def _catalogue(self) -> list[tuple[str, list[str], Rows]]:
        catalog = self.catalog
        return [
            ("EXA_SCHEMAS", ["SCHEMA_NAME"], [(name,) for name in catalog.schemas]),
            (
                "EXA_ALL_SCRIPTS",
                ["SCRIPT_SCHEMA", "SCRIPT_NAME", "SCRIPT_TEXT"],
                [(*key, text) for key, text in catalog.scripts.items()],
            ),
            (
                "EXA_ALL_VIEWS",
                ["VIEW_SCHEMA", "VIEW_NAME", "VIEW_TEXT"],
                [(*key, text) for key, text in catalog.views.items()],
            ),
            (
                "EXA_PARAMETERS",
                ["PARAMETER_NAME", "SESSION_VALUE"],
                [("SCRIPT_LANGUAGES", catalog.languages)],
            ),
        ]

    def _key(self, match: re.Match[str]) -> tuple[str, str]:
        schema, name = _stored(match["schema"]), _stored(match["name"])
        if schema not in self.catalog.schemas:
            raise _SqlError(f"schema {schema} not found")
        return schema, name


_TYPED: dict[str, Callable[[Any], Any]] = {
    "DECIMAL": lambda value: Decimal(str(value)),
    "DOUBLE": float,
    "BOOLEAN": bool,
    "DATE": date.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
}


def _typed(row: tuple[Any, ...], script: Script) -> tuple[Any, ...]:
    # values from SQLite are converted to the types of the script's parameters
    return tuple(
        None if value is None else _TYPED.get(column.type.kind, str)(value)
        for value, column in zip(row, script.inputs, strict=True)
    )


def _named_values(match: re.Match[str]) -> str:
    # SQLite does not support AS T(C1, …)
    names = match["names"].split(", ")
    columns = ", ".join(f"column{n} AS {name}" for n, name in enumerate(names, start=1))
    return f"(SELECT {columns} FROM (VALUES{match['rows']}))"  # noqa: S608


def _stored(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier.upper()


def _columns(script: Script) -> list[dict[str, Any]]:
    found = []
    for column in script.outputs:
        kind = column.type
        described: dict[str, Any] = {"type": kind.kind}
        if kind.kind == "DECIMAL":
            described |= {"precision": kind.precision, "scale": kind.scale}
        if kind.size is not None:
            described |= {"size": kind.size, "characterSet": "ASCII" if kind.ascii else "UTF8"}
        found.append({"name": column.name, "dataType": described})
    return found


def _result(columns: list[dict[str, Any]], rows: Rows) -> dict[str, Any]:
    if not columns:
        return {"resultType": "rowCount", "rowCount": 0}
    result = {
        "numColumns": len(columns),
        "numRows": len(rows),
        "numRowsInMessage": len(rows),
        "columns": columns,
        "data": [[_in_json(value) for value in column] for column in zip(*rows, strict=True)],
    }
    return {"resultType": "resultSet", "resultSet": result}


def _in_json(value: object) -> object:
    # integers of more than 53 bits, decimals, dates and times are sent as text
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return str(value)


def _answer(connection: ServerConnection, **parts: Any) -> None:
    response: dict[str, Any] = {"status": "ok"}
    if "data" in parts:
        response["responseData"] = parts["data"]
    if "attributes" in parts:
        response["attributes"] = parts["attributes"]
    connection.send(json.dumps(response))


def _refuse(connection: ServerConnection, text: str, code: str) -> None:
    exception = {"text": f"{text} (Session: 1)", "sqlCode": code}
    connection.send(json.dumps({"status": "error", "exception": exception}))
