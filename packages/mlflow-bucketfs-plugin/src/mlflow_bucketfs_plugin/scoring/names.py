"""Parse, check and quote the identifiers of Exasol's SQL."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from mlflow_bucketfs_plugin.scoring import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CHARACTERS = 128
_MOST_PARTS = 2  # of the name of an object: its schema and its own name

# The Unicode categories that Exasol's documentation ("SQL identifier") allows without quotation
# marks
_FIRST = {"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"}
_FURTHER = _FIRST | {"Mn", "Mc", "Nd", "Pc", "Cf"}
_MIDDLE_DOT = "\N{MIDDLE DOT}"
# Parameters of a script are case-sensitive; all others are quoted
_PLAIN_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9_]*")

# EXA_SQL_KEYWORDS where RESERVED is true. A superfluous word only causes quotation marks.
_RESERVED = frozenset(
    """
    ABSOLUTE ACTION ADD AFTER ALL ALLOCATE ALTER AND ANY APPEND ARE ARRAY AS ASC ASENSITIVE
    ASSERTION AT ATTRIBUTE AUTHID AUTHORIZATION BEFORE BEGIN BETWEEN BIGINT BINARY BIT BLOB BLOCKED
    BOOL BOOLEAN BOTH BY BYTE CALL CALLED CARDINALITY CASCADE CASCADED CASE CASESPECIFIC CAST
    CATALOG CHAIN CHAR CHARACTER CHARACTERISTICS CHARACTER_SET_CATALOG CHARACTER_SET_NAME
    CHARACTER_SET_SCHEMA CHECK CHECKED CLOB CLOSE COALESCE COLLATE COLLATION COLLATION_CATALOG
    COLLATION_NAME COLLATION_SCHEMA COLUMN COMMIT CONDITION CONNECTION CONNECT_BY_ISCYCLE
    CONNECT_BY_ISLEAF CONNECT_BY_ROOT CONSTANT CONSTRAINT CONSTRAINTS CONSTRAINT_STATE_DEFAULT
    CONSTRUCTOR CONTAINS CONTINUE CONTROL CONVERT CORRESPONDING CREATE CROSS CS CSV CUBE CURRENT
    CURRENT_DATE CURRENT_PATH CURRENT_ROLE CURRENT_SCHEMA CURRENT_SESSION CURRENT_STATEMENT
    CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR CYCLE DATA DATALINK DATE
    DATETIME_INTERVAL_CODE DATETIME_INTERVAL_PRECISION DAY DBTIMEZONE DEALLOCATE DEC DECIMAL DECLARE
    DEFAULT DEFAULT_LIKE_ESCAPE_CHARACTER DEFERRABLE DEFERRED DEFINED DEFINER DELETE DEREF DERIVED
    DESC DESCRIBE DESCRIPTOR DETERMINISTIC DISABLE DISABLED DISCONNECT DISPATCH DISTINCT
    DLURLCOMPLETE DLURLPATH DLURLPATHONLY DLURLSCHEME DLURLSERVER DLVALUE DO DOMAIN DOUBLE DROP
    DYNAMIC DYNAMIC_FUNCTION DYNAMIC_FUNCTION_CODE EACH ELSE ELSEIF ELSIF EMITS ENABLE ENABLED END
    ENDIF ENFORCE EQUALS ERRORS ESCAPE EXCEPT EXCEPTION EXEC EXECUTE EXISTS EXIT EXPORT EXTERNAL
    EXTRACT FALSE FBV FETCH FILE FINAL FIRST FLOAT FOLLOWING FOR FORALL FORCE FORMAT FOUND FREE FROM
    FS FULL FUNCTION GENERAL GENERATED GEOMETRY GET GLOBAL GO GOTO GRANT GRANTED GROUP GROUPING
    GROUPS GROUP_CONCAT HASHTYPE HASHTYPE_FORMAT HAVING HIGH HOLD HOUR IDENTITY IF IFNULL IMMEDIATE
    IMPERSONATE IMPLEMENTATION IMPORT IN INDEX INDICATOR INNER INOUT INPUT INSENSITIVE INSERT
    INSTANCE INSTANTIABLE INT INTEGER INTEGRITY INTERSECT INTERVAL INTO INVERSE INVOKER IS ITERATE
    JOIN KEY_MEMBER KEY_TYPE LARGE LAST LATERAL LDAP LEADING LEAVE LEFT LEVEL LIKE LIMIT LISTAGG
    LOCAL LOCALTIME LOCALTIMESTAMP LOCATOR LOG LONGVARCHAR LOOP LOW MAP MATCH MATCHED MERGE METHOD
    MINUS MINUTE MOD MODIFIES MODIFY MODULE MONTH NAMES NATIONAL NATURAL NCHAR NCLOB NEW NEXT
    NLS_DATE_FORMAT NLS_DATE_LANGUAGE NLS_FIRST_DAY_OF_WEEK NLS_NUMERIC_CHARACTERS
    NLS_TIMESTAMP_FORMAT NO NOCYCLE NOLOGGING NONE NOT NULL NULLIF NUMBER NUMERIC NVARCHAR NVARCHAR2
    OBJECT OF OFF OLD ON ONLY OPEN OPTION OPTIONS OR ORDER ORDERING ORDINALITY OTHERS OUT OUTER
    OUTPUT OVER OVERLAPS OVERLAY OVERRIDING PAD PARALLEL_ENABLE PARAMETER PARAMETER_SPECIFIC_CATALOG
    PARAMETER_SPECIFIC_NAME PARAMETER_SPECIFIC_SCHEMA PARTIAL PARTITION PATH PERMISSION PLACING PLUS
    POSITION PRECEDING PREFERRING PREPARE PRESERVE PRIOR PRIVILEGES PROCEDURE PROFILE QUALIFY RANDOM
    RANGE READ READS REAL RECOVERY RECURSIVE REF REFERENCES REFERENCING REFRESH REGEXP_LIKE RELATIVE
    RELEASE RENAME REPEAT REPLACE RESTORE RESTRICT RESULT RETURN RETURNED_LENGTH
    RETURNED_OCTET_LENGTH RETURNS REVOKE RIGHT ROLLBACK ROLLUP ROUTINE ROW ROWS ROWTYPE SAVEPOINT
    SCHEMA SCOPE SCOPE_USER SCRIPT SCROLL SEARCH SECOND SECTION SECURITY SELECT SELECTIVE SELF
    SENSITIVE SEPARATOR SEQUENCE SESSION SESSIONTIMEZONE SESSION_USER SET SETS SHORTINT SIMILAR
    SMALLINT SOME SOURCE SPACE SPECIFIC SPECIFICTYPE SQL SQLEXCEPTION SQLSTATE SQLWARNING SQL_BIGINT
    SQL_BIT SQL_CHAR SQL_DATE SQL_DECIMAL SQL_DOUBLE SQL_FLOAT SQL_INTEGER SQL_LONGVARCHAR
    SQL_NUMERIC SQL_PREPROCESSOR_SCRIPT SQL_REAL SQL_SMALLINT SQL_TIMESTAMP SQL_TINYINT
    SQL_TYPE_DATE SQL_TYPE_TIMESTAMP SQL_VARCHAR START STATE STATEMENT STATIC STRUCTURE STYLE
    SUBSTRING SUBTYPE SYSDATE SYSTEM SYSTEM_USER SYSTIMESTAMP TABLE TEMPORARY TEXT THEN TIME
    TIMESTAMP TIMEZONE_HOUR TIMEZONE_MINUTE TINYINT TO TRAILING TRANSACTION TRANSFORM TRANSFORMS
    TRANSLATION TREAT TRIGGER TRIM TRUE TRUNCATE UNDER UNION UNIQUE UNKNOWN UNLINK UNNEST UNTIL
    UPDATE USAGE USER USING VALUE VALUES VARCHAR VARCHAR2 VARRAY VERIFY VIEW WHEN WHENEVER WHERE
    WHILE WINDOW WITH WITHIN WITHOUT WORK YEAR YES ZONE
    """.split()  # noqa: SIM905 -- a word per line would be a page
)


def read_identifier(text: str, what: str) -> tuple[str, str]:
    """Parse the identifier at the beginning of a text.

    Without quotation marks, its name is in upper case, as in SQL.

    Args:
        text: begins with an identifier, such as ``age`` or ``"My age"``.
        what: the text's name in messages, such as ``--key``.

    Returns:
        The name as the database stores it, and the rest of the text.

    Raises:
        ScriptError: the text does not begin with an identifier, or with an invalid one.
    """
    stripped = text.lstrip()
    if stripped.startswith('"'):
        return _read_quoted(stripped, what)
    end = next(
        (i for i, character in enumerate(stripped) if not _is_regular(character, first=i == 0)),
        len(stripped),
    )
    plain, rest = stripped[:end], stripped[end:]
    if not plain:
        raise ScriptError(
            f"{what}: {text!r} does not begin with an identifier. Names that do not begin with a "
            'letter, or have other characters than letters, digits and _, need quotation marks: "…"'
        )
    upper = plain.upper()
    if len(upper) != len(plain):
        raise ScriptError(
            f"{what}: the upper case of {plain!r} is not certain. Write the name in quotation "
            'marks, as the database shows it: "…"'
        )
    return check_name(upper, what), rest


def _read_quoted(text: str, what: str) -> tuple[str, str]:
    match = re.match(r'"((?:[^"]|"")*)"', text)
    if not match:
        raise ScriptError(f"{what}: the quotation mark that {text!r} begins with is not closed.")
    return check_name(match[1].replace('""', '"'), what), text[match.end() :]


def _is_regular(character: str, *, first: bool) -> bool:
    category = unicodedata.category(character)
    return category in _FIRST if first else category in _FURTHER or character == _MIDDLE_DOT


def parse_identifier(text: str, what: str) -> str:
    """Parse a text that is one identifier, and return its name.

    Raises:
        ScriptError: see :func:`read_identifier`, or the text does not end after it.
    """
    name, rest = read_identifier(text, what)
    if rest.strip():
        raise ScriptError(_unexpected(rest, text, what))
    return name


def parse_object_name(text: str, what: str) -> tuple[str, ...]:
    """Parse the name of a script, table or view, ``[SCHEMA.]NAME``, into its parts.

    Raises:
        ScriptError: see :func:`read_identifier`, or there are more than two parts.
    """
    name, rest = read_identifier(text, what)
    parts = [name]
    while rest.lstrip().startswith("."):
        name, rest = read_identifier(rest.lstrip()[1:], what)
        parts.append(name)
    if rest.strip():
        raise ScriptError(_unexpected(rest, text, what))
    if len(parts) > _MOST_PARTS:
        raise ScriptError(f"{what}: {text!r} has {len(parts)} parts. Write SCHEMA.NAME or NAME.")
    return tuple(parts)


def _unexpected(rest: str, text: str, what: str) -> str:
    return f"{what}: {rest.strip()!r} was not expected in {text!r}. {rest_remedy(rest)}"


def rest_remedy(rest: str) -> str:
    """Return the remedy for a text after an identifier that may belong to the name."""
    if rest.lstrip().startswith("."):
        return "Exasol allows no dot in an identifier."
    return (
        "Names with blanks, or with other characters than letters, digits and _, need quotation "
        'marks: "…"'
    )


def check_name(name: str, what: str) -> str:
    """Return a name if it can be an identifier, at least in quotation marks.

    Raises:
        ScriptError: it is empty or too long, or has a character that no identifier may have.
    """
    if not name:
        raise ScriptError(f"{what}: a name is empty.")
    if len(name) > MAX_CHARACTERS:
        raise ScriptError(
            f"{what}: the name {name!r} has {len(name)} characters; Exasol allows {MAX_CHARACTERS}."
        )
    if "." in name:
        raise ScriptError(
            f"{what}: the name {name!r} has a dot; Exasol allows none in an identifier."
        )
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in name):
        raise ScriptError(
            f"{what}: the name {name!r} has a line break or another character that a script cannot "
            "contain."
        )
    return name


def sql_name(name: str) -> str:
    """Return a name as SQL, quoted if the database would otherwise change or reject it."""
    is_plain = _PLAIN_NAME.fullmatch(name) and name not in _RESERVED
    return name if is_plain else quoted(name)


def sql_object_name(parts: Iterable[str]) -> str:
    """Return the name of an object as SQL, with its schema if it has one."""
    return ".".join(map(sql_name, parts))


def sql_parameters(names: list[str]) -> list[str]:
    """Return the names of a script's parameters as SQL.

    A script's parameters keep their case, quoted or not, so that ``age`` needs no quotation marks.
    Names that differ only in case are quoted.
    """
    spellings = [name.upper() for name in names]
    return [
        name
        if _PLAIN_PARAMETER.fullmatch(name)
        and name.upper() not in _RESERVED
        and spellings.count(name.upper()) == 1
        else quoted(name)
        for name in names
    ]


def sql_columns(names: list[str]) -> list[str]:
    """Return, as SQL, the table's columns that most likely belong to parameters of these names.

    A column without quotation marks is in upper case, so a reserved word is quoted in upper case.
    """
    return [
        quoted(name.upper()) if name.upper() in _RESERVED and spelt == quoted(name) else spelt
        for name, spelt in zip(names, sql_parameters(names), strict=True)
    ]


def quoted(name: str) -> str:
    """Return a name in quotation marks."""
    return '"' + name.replace('"', '""') + '"'
