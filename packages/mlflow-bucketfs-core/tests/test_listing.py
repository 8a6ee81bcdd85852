"""Parsing listings: the same keys for all sizes of chunks, and memory for the matches only."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_core.listing import children, keys_under

LINES = st.lists(
    st.lists(st.sampled_from([b"a", b"b", b"ab", b"\xc3\xbc", b"\xff", b" ", b"\r"]), max_size=4)
    .map(b"/".join)
    .flatmap(lambda line: st.sampled_from([line, line + b"x", line + b"\r", line + b"/"])),
    max_size=12,
)
BODIES = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    LINES,
    st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]),
)
PREFIXES = st.sampled_from(["", "a", "ab", "a/b", "b", "ü", "ü/a", "\udcff", "ax", " ", "a/"])


def naive_keys_under(body, prefix):
    """Return the keys by a simple implementation, to compare with."""
    lines = [line.removesuffix(b"\r") for line in body.split(b"\n")]
    keys = [line.decode("utf-8", "surrogateescape") for line in lines]
    return [k for k in keys if k and (not prefix or k == prefix or k.startswith(f"{prefix}/"))]


@given(BODIES, PREFIXES, st.lists(st.integers(0, 80), max_size=10))
def test_chunks_of_any_size_give_the_same_keys(body, prefix, cuts):
    """The keys do not depend on the sizes of the listing's chunks."""
    edges = [0, *sorted(cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    assert list(keys_under(chunks, prefix)) == naive_keys_under(b"".join(chunks), prefix)


@given(BODIES, PREFIXES)
def test_single_bytes_give_the_same_keys(body, prefix):
    """A listing in chunks of one byte has the same keys."""
    chunks = (body[index : index + 1] for index in range(len(body)))
    assert list(keys_under(chunks, prefix)) == naive_keys_under(body, prefix)


@pytest.mark.parametrize(
    ("body", "prefix", "expected"),
    [
        pytest.param(b"foo/a\nfoobar/b\nfoo\nfo\n", "foo", ["foo/a", "foo"], id="sibling"),
        pytest.param(b"x/foo/a\nfoo/a", "foo", ["foo/a"], id="inner"),
        pytest.param(b"a\r\nb\r\n", "", ["a", "b"], id="crlf"),
        pytest.param(b"d/a\r\nd\r\n", "d", ["d/a", "d"], id="crlf-prefix"),
        pytest.param(b"a\nb", "", ["a", "b"], id="no-newline-at-end"),
        pytest.param(b"\n\na\n\n", "", ["a"], id="blank-lines"),
        pytest.param(b" a \n", "", [" a "], id="blanks-kept"),
        pytest.param(b"\xff\xfe\n", "", ["\udcff\udcfe"], id="not-utf-8"),
        pytest.param(b"a\xe2\x80\xa8b\x0bc\n", "", ["a\u2028b\x0bc"], id="other-line-ends"),
        pytest.param(b"", "", [], id="empty"),
        pytest.param(b"", "foo", [], id="empty-prefix"),
    ],
)
def test_listings(body, prefix, expected):
    """Every line is a key, with any bytes, and a prefix ends at a slash."""
    assert list(keys_under([body], prefix)) == expected


def test_only_matches_are_kept_in_memory():
    """A large listing is parsed without keeping it in memory."""
    block = b"".join(b"other/%06d\n" % number for number in range(20_000))
    tracemalloc.start()
    try:
        found = list(keys_under((block for _ in range(100)), "mine"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == []
    assert peak < 8 * len(block)


@pytest.mark.parametrize(
    ("keys", "folder", "expected"),
    [
        pytest.param(["b", "a"], "", {"a": False, "b": False}, id="sorted"),
        pytest.param(["a/b/c"], "", {"a": True}, id="folder"),
        pytest.param(["a/b/c", "a/d"], "a", {"b": True, "d": False}, id="inner"),
        pytest.param(["foo/a", "foobar/b"], "foo", {"a": False}, id="sibling"),
        pytest.param(["d", "d/x"], "", {"d": True}, id="both"),
        pytest.param(["d/x", "d"], "", {"d": True}, id="both-other-order"),
        pytest.param(["d"], "d", {}, id="the-file-itself"),
        pytest.param(["d/"], "d", {}, id="trailing-slash"),
        pytest.param([], "", {}, id="empty"),
    ],
)
def test_children(keys, folder, expected):
    """Only direct children are returned, sorted; a name of a file and a folder is a folder."""
    assert children(keys, folder) == expected
    assert list(children(keys, folder)) == sorted(expected)
