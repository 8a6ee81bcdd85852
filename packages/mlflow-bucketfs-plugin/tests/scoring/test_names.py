"""Identifiers: what is read is what the database would store, and what is written reads back."""

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

# all that a name may have: no dots, control characters, surrogates or separators of lines
NAMES = st.text(
    st.characters(exclude_characters=".", exclude_categories=("Cc", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=MAX_CHARACTERS,
)
PLAIN = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)


@given(NAMES)
def test_written_names_read_back(name):
    """A name that is written, quoted or not, is the same name when it is read."""
    assert parse_identifier(sql_name(name), "") == name


@given(st.lists(NAMES, min_size=1, max_size=2))
def test_written_object_names_read_back(parts):
    """So are a schema and a name, whatever quotation marks are in them."""
    assert parse_object_name(sql_object_name(parts), "") == tuple(parts)


@given(PLAIN)
def test_plain_names_are_stored_in_upper_case(name):
    """Without quotation marks, case does not count."""
    assert parse_identifier(name, "") == name.upper()
    assert parse_identifier(f'  "{name}" ', "") == name


@given(st.lists(NAMES, unique=True, max_size=8))
def test_parameters_stay_different(names):
    """Parameters keep their spelling; those that differ in case only are quoted."""
    spelt = sql_parameters(names)
    assert len(set(spelt)) == len(names)
    assert [s if s[0] != '"' else parse_identifier(s, "") for s in spelt] == names
    plain = [s.upper() for s in spelt if s[0] != '"']
    assert len(set(plain)) == len(plain)


@given(NAMES, st.sampled_from(["", " DOUBLE", " DECIMAL(18,0)", "="]))
def test_rest_is_returned(name, rest):
    """What follows an identifier is left to the caller."""
    assert read_identifier(sql_name(name) + rest, "") == (name, rest)


@pytest.mark.parametrize("word", ["date", "value", "NEXT", "position", "user", "Result"])
def test_reserved_words_are_quoted(word):
    """A column may be called as a keyword, in quotation marks."""
    assert sql_name(word.upper()) == f'"{word.upper()}"'
    assert sql_parameters([word]) == [f'"{word}"']


@pytest.mark.parametrize(
    ("name", "plain"),
    [("SIZE", "SIZE"), ("size", '"size"'), ("größe", '"größe"'), ("A B", '"A B"'), ("É", '"É"')],
)
def test_quotation_marks(name, plain):
    """Only upper-case letters of ASCII, digits and _ stand without quotation marks."""
    assert sql_name(name) == plain


def test_case_counts_in_parameters():
    """A parameter stands as it is spelt, unless another one differs in case only."""
    assert sql_parameters(["ID", "age", "size"]) == ["ID", "age", "size"]
    assert sql_parameters(["ID", "id", "Age"]) == ['"ID"', '"id"', "Age"]


def test_columns():
    """A column is called as the parameter, in upper case where quotation marks are needed."""
    assert sql_columns(["ID", "age", "date", "größe"]) == ["ID", "age", '"DATE"', '"größe"']


@pytest.mark.parametrize("text", ["größe", "müller_2"])
def test_umlauts_without_quotation_marks(text):
    """An umlaut has one upper case; ß has none of one letter, and is asked for."""
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
        ("a-b", "'-b' was not expected"),
        ('"a.b"', "has a dot"),
        ('"a\nb"', "line break"),
        ('"a\u2028b"', "line break"),
        ("A" * 129, "has 129 characters; Exasol allows 128"),
        ('"' + "a" * 129 + '"', "has 129 characters; Exasol allows 128"),
    ],
)
def test_what_no_identifier_is(text, reason):
    """Each is refused, naming the option and the reason."""
    with pytest.raises(ScriptError, match=reason) as raised:
        parse_identifier(text, "--key")
    assert str(raised.value).startswith("--key")


@pytest.mark.parametrize("text", ["a.b.c", "a.", ".a", "a b", "a.b c"])
def test_what_no_object_name_is(text):
    """A script has a schema and a name, no more."""
    with pytest.raises(ScriptError, match="--name"):
        parse_object_name(text, "--name")


def test_longest_name():
    """Exasol counts characters, not bytes."""
    assert check_name("ß" * MAX_CHARACTERS, "") == "ß" * MAX_CHARACTERS
