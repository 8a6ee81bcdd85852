"""Names of keys in requests, listings and the store."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_testing.server import IllegalNameError
from mlflow_bucketfs_testing.server.protocol import check_key, parse_target
from mlflow_bucketfs_testing.server.request import Target

NAMES = [
    "a#b",
    "q?x",
    "p%41",
    "plus+x",
    "with space",
    "ümläut",
    "日本語",
    ".hidden",
    "per%cent",
    "semi;colon",
    "am&p=1",
    "~tilde",
    "com,ma",
    "m.tar.gz",
    "noext",
    "back\\slash",
    "co:lon",
    'sin\'gle "double"',
    "Ω̈" * 60,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_survive(server, client, name):
    """An object with this name is listed, read and deleted under the same name."""
    key = f"{name}/{name}"
    path = "/default/" + quote(key)
    assert client.put(path, name.encode()).status == 200
    assert server.keys() == [key]
    assert server.read(key) == name.encode()
    assert client.get("/default").body.decode() == f"{key}\n"
    assert client.get(path).body == name.encode()
    assert client.delete(path).status == 200
    assert server.keys() == []


@pytest.mark.parametrize(
    "path",
    [
        "/default/a/../b",
        "/default/..",
        "/default/%2e%2e/b",
        "/default/a/./b",
        "//",
        "//default/a",
        "//default",
        "http://localhost//default/a",
        "default/a",
        "xdefault/a",
        "*",
        "/default//a",
        "/default/a//b",
        "/default/a//",
        "/default/a%0Ab",
        "/default/a%00b",
        "/default/a%7Fb",
        "/default/a%C2%85b",
        "/default/%FF",
        "/%FF/a",
        "/default/" + "x" * 256,
        "/default/" + "x/" * 1600 + "x",
    ],
)
def test_illegal_names_are_400(server, client, path):
    """Names that are illegal in a path or a listing are refused and logged, for every method."""
    server.put("a", b"1")
    assert client.put(path, b"x").status == 400
    assert client.get(path).status == 400
    assert client.delete(path).status == 400
    assert server.requests.count(status=400) == 3
    assert server.keys() == ["a"]


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a\nb"])
def test_put_refuses_illegal_keys(server, key):
    """`put` and `delete` without HTTP refuse the same names."""
    with pytest.raises(IllegalNameError):
        server.put(key, b"")
    with pytest.raises(IllegalNameError):
        server.delete(key)


def test_escaped_slash_is_a_slash(server, client):
    """``%2F`` separates folders like a slash."""
    client.put("/default/a%2Fb", b"x")
    assert server.keys() == ["a/b"]


segments = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=60
).filter(lambda segment: segment not in {".", ".."})


@given(st.lists(segments, min_size=1, max_size=6).map("/".join), st.sampled_from(["", "/~"]))
def test_quoting_is_undone(key, safe):
    """A quoted path is parsed to its key, with slashes and tildes quoted or not."""
    check_key(key)
    assert parse_target(f"/b/{quote(key, safe=safe)}".encode()) == Target("b", key)
