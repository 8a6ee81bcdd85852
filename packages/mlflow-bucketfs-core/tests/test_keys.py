"""Keys: which are valid, how they are encoded in URLs, and their names on the mount."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_core.errors import InvalidKeyError
from mlflow_bucketfs_core.uri import (
    join_key,
    normalize_key,
    parent_folders,
    quote_key,
    split_key,
    strip_archive_suffix,
)

ANY_PATH = st.lists(st.text(max_size=5) | st.sampled_from(["", ".", "..", "a"])).map("/".join)


@given(ANY_PATH)
def test_normalizing_is_idempotent_or_refuses(path):
    """A path is refused, or becomes a key that normalizing does not change."""
    try:
        key = normalize_key(path)
    except InvalidKeyError:
        return
    assert normalize_key(key) == key
    assert not {"", ".", ".."} & set(split_key(key))
    assert key == "/".join(part for part in path.split("/") if part)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_quoting_is_undone_by_unquoting(key):
    """An encoded key decodes to the same key, and has no special characters of a URL."""
    quoted = quote_key(key)
    assert unquote(quoted, errors="strict") == key
    assert quoted.isascii()
    assert not set(quoted) & set('#?+; &=\\"<>')


@given(st.lists(st.sampled_from(["a", "b", "ü"]), min_size=1))
def test_parent_folders_are_all_prefixes(segments):
    """All folders above a key are returned, outermost first, without the key itself."""
    expected = ["/".join(segments[:end]) for end in range(1, len(segments))]
    assert parent_folders("/".join(segments)) == expected


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("..", id="dotdot"),
        pytest.param("a/../b", id="inner-dotdot"),
        pytest.param("a/.", id="dot"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\r", id="carriage-return"),
        pytest.param("a\tb", id="tab"),
        pytest.param("\x00", id="nul"),
        pytest.param("\x7f", id="delete"),
        pytest.param("\x9f", id="c1"),
        pytest.param("a\udcffb", id="not-utf-8"),
    ],
)
def test_refused_paths(path):
    """A path that leaves its folder or breaks the listing is refused, and the error shows it."""
    with pytest.raises(InvalidKeyError) as caught:
        normalize_key(path)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [" a ", "a\u00a0b", "a\u200bb", "\u2028", "...", "..a", "%2e%2e", "a\\..\\b", "~", "e\u0301"],
)
def test_odd_keys_stay_literal(key):
    """A key is not decoded, stripped or normalized."""
    assert normalize_key(key) == key


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [("", "", ""), ("a", "", "a"), ("", "b", "b"), ("a/b", "c", "a/b/c")],
)
def test_join_key(folder, name, expected):
    """Joining with the root adds no slash."""
    assert join_key(folder, name) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("m.tar.gz", "m"),
        ("m.tar.bz2", "m.tar.bz2"),
        ("m.tgz", "m"),
        ("m.tar", "m"),
        ("m.zip", "m"),
        ("d/m.zip", "d/m"),
        ("d.zip/m", "d.zip/m"),
        ("m.gz", "m.gz"),
        ("m.pkl.gz", "m.pkl.gz"),
        ("m.jar", "m.jar"),
        ("m.zipx", "m.zipx"),
        ("m.ZIP", "m.ZIP"),
        ("m.zip.zip", "m.zip"),
        ("m.tar.zip", "m.tar"),
        ("zip", "zip"),
        (".zip", ".zip"),
        ("d/.tar.gz", "d/.tar.gz"),
        ("", ""),
    ],
)
def test_strip_archive_suffix(key, expected):
    """One suffix of an archive is removed from the last segment; ``.gz`` alone is kept."""
    assert strip_archive_suffix(key) == expected
