"""Parsing and quoting SQL identifiers, as the database does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.names import (
    MAX_CHARACTERS,
    check_name,
    parse_identifier,
    parse_object_name,
    read_identifier,
    sql_columns,
    sql_name,
    sql_object_name,
    sql_parameters,
)

# all characters of valid names: no dots, control characters, surrogates or line separators
NAMES = st.text(
    st.characters(exclude_characters=".", exclude_categories=("Cc", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=MAX_CHARACTERS,
)
PLAIN = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)


@given(NAMES)
def test_names_as_sql_are_parsed_back(name):
    """A name as SQL, quoted or not, is parsed to the same name."""
    assert parse_identifier(sql_name(name), "") == name


@given(st.lists(NAMES, min_size=1, max_size=2))
def test_object_names_as_sql_are_parsed_back(parts):
    """A schema and a name as SQL are parsed to the same parts, with quotation marks in them."""
    assert parse_object_name(sql_object_name(parts), "") == tuple(parts)


@given(PLAIN)
def test_plain_names_are_stored_in_upper_case(name):
    """A name without quotation marks is parsed to upper case; a quoted one keeps its case."""
    assert parse_identifier(name, "") == name.upper()
    assert parse_identifier(f'  "{name}" ', "") == name


@given(st.lists(NAMES, unique=True, max_size=8))
def test_parameters_stay_different(names):
    """Parameters keep their case; names that differ only in case are quoted."""
    spelt = sql_parameters(names)
    assert len(set(spelt)) == len(names)
    assert [s if s[0] != '"' else parse_identifier(s, "") for s in spelt] == names
    plain = [s.upper() for s in spelt if s[0] != '"']
    assert len(set(plain)) == len(plain)


@given(NAMES, st.sampled_from(["", " DOUBLE", " DECIMAL(18,0)", "="]))
def test_rest_is_returned(name, rest):
    """The text after an identifier is returned."""
    assert read_identifier(sql_name(name) + rest, "") == (name, rest)


@pytest.mark.parametrize("word", ["date", "value", "NEXT", "position", "user", "Result"])
def test_reserved_words_are_quoted(word):
    """Reserved words are quoted in names and parameters."""
    assert sql_name(word.upper()) == f'"{word.upper()}"'
    assert sql_parameters([word]) == [f'"{word}"']


@pytest.mark.parametrize(
    ("name", "plain"),
    [("SIZE", "SIZE"), ("size", '"size"'), ("größe", '"größe"'), ("A B", '"A B"'), ("É", '"É"')],
)
def test_quotation_marks(name, plain):
    """Only names of ASCII upper-case letters, digits and _ have no quotation marks."""
    assert sql_name(name) == plain


def test_case_counts_in_parameters():
    """A parameter keeps its case without quotation marks, unless another differs only in case."""
    assert sql_parameters(["ID", "age", "size"]) == ["ID", "age", "size"]
    assert sql_parameters(["ID", "id", "Age"]) == ['"ID"', '"id"', "Age"]


def test_columns():
    """A column has the name of its parameter, or in upper case if it is a reserved word."""
    assert sql_columns(["ID", "age", "date", "größe"]) == ["ID", "age", '"DATE"', '"größe"']


@pytest.mark.parametrize("text", ["größe", "müller_2"])
def test_umlauts_without_quotation_marks(text):
    """An umlaut is converted to upper case; ß, which would become two letters, is refused."""
    if "ß" in text:
        with pytest.raises(ScriptError, match="upper case of 'größe' is not certain"):
            parse_identifier(text, "--key")
    else:
        assert parse_identifier(text, "--key") == "MÜLLER_2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with an identifier"),
        ("1st", "does not begin with an identifier"),
        ("_x", "does not begin with an identifier"),
        ('"open', "is not closed"),
        ('""', "a name is empty"),
        ("a b", "'b' was not expected"),
        ('"a"b', "'b' was not expected"),
        ("a-b", "'-b' was not expected in 'a-b'. Names with blanks, .* need quotation marks"),
        ("a.b", "'.b' was not expected in 'a.b'. Exasol allows no dot in an identifier"),
        ('"a.b"', "has a dot"),
        ('"a\nb"', "line break"),
        ('"a\u2028b"', "line break"),
        ("A" * 129, "has 129 characters; Exasol allows 128"),
        ('"' + "a" * 129 + '"', "has 129 characters; Exasol allows 128"),
    ],
)
def test_invalid_identifiers(text, reason):
    """An invalid identifier is refused with the option and the reason."""
    with pytest.raises(ScriptError, match=reason) as raised:
        parse_identifier(text, "--key")
    assert str(raised.value).startswith("--key")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.b.c", "'a.b.c' has 3 parts. Write SCHEMA.NAME or NAME"),
        ('a . "b" .c. d', "has 4 parts. Write SCHEMA.NAME or NAME"),
        ("a.", "does not begin with an identifier"),
        (".a", "does not begin with an identifier"),
        ("a b", "'b' was not expected in 'a b'.*quotation marks"),
        ("a.b c", "'c' was not expected in 'a.b c'.*quotation marks"),
    ],
)
def test_invalid_object_names(text, reason):
    """An object name of other parts than a schema and a name is refused with the remedy."""
    with pytest.raises(ScriptError, match=f"^--name: .*{reason}"):
        parse_object_name(text, "--name")


def test_longest_name():
    """The length of a name is limited in characters, not in bytes."""
    assert check_name("ß" * MAX_CHARACTERS, "") == "ß" * MAX_CHARACTERS
