"""Every method and status code."""

from __future__ import annotations

import time

import pytest
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Profile


def test_put_get_delete_answer_200(client):
    """All successes are exactly 200; a download returns the uploaded bytes."""
    data = bytes(range(256)) * 5
    assert client.put("/default/a/b.bin", data).status == 200
    response = client.get("/default/a/b.bin")
    assert (response.status, response.body) == (200, data)
    assert response.headers["Content-Length"] == str(len(data))
    assert client.delete("/default/a/b.bin").status == 200
    assert client.get("/default/a/b.bin").status == 404


def test_buckets_are_listed_without_password(client):
    """GET / lists all buckets, also private ones, one per line."""
    response = client.get("/")
    assert (response.status, response.body) == (200, b"default\nprivate\n")


@pytest.mark.parametrize("path", ["/default", "/default/", "/default?x=1"])
def test_listing_is_flat(server, client, path):
    """A bucket's listing has all keys, one per line, and no directories."""
    server.put_many([("b/c/d", b""), ("a", b""), ("ü", b"")])
    response = client.get(path)
    assert response.status == 200
    assert response.body.decode() == "b/c/d\na\nü\n"
    assert response.headers["Content-Type"] == "text/plain"


def test_empty_bucket_lists_nothing(client):
    """An empty bucket is 200 with an empty body."""
    response = client.get("/default/")
    assert (response.status, response.body) == (200, b"")


def test_long_listing_is_complete(server, client):
    """A listing that is longer than one write contains every key once."""
    keys = [f"folder{i % 7}/file{i}" for i in range(12_345)]
    server.put_many((key, b"") for key in keys)
    assert client.get("/default").body.decode().splitlines() == keys


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "OPTIONS", "MOVE"])
def test_other_methods_are_405(client, method):
    """Only GET, PUT and DELETE exist."""
    assert client.ask(method, "/default/a", user="w", password="write").status == 405


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/default", "/default/"])
def test_buckets_themselves_are_read_only(client, method, path):
    """A bucket cannot be written or deleted."""
    assert client.ask(method, path, user="w", password="write").status == 405


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_missing_bucket_is_404(client, method):
    """An unknown bucket is 404 for every method; an escaped slash does not end its name."""
    assert client.ask(method, "/none/a", user="w", password="write").status == 404
    assert client.get("/default%2Fa").status == 404


@pytest.mark.parametrize(
    ("path", "user", "password", "read_status", "write_status"),
    [
        ("/default/k", None, "", 200, 401),
        ("/default/k", "r", "read", 200, 403),
        ("/default/k", "r", "wrong", 200, 403),
        ("/default/k", "w", "write", 200, 200),
        ("/default/k", "w", "wrong", 200, 403),
        ("/default/k", "x", "write", 200, 403),
        ("/private/k", None, "", 401, 401),
        ("/private/k", "r", "r1", 200, 403),
        ("/private/k", "r", "read", 403, 403),
        ("/private/k", "w", "w1", 200, 200),
        ("/private/k", "r", "w1", 403, 403),
        ("/private/k", "w", "r1", 403, 403),
        ("/private/k", "w", "", 403, 403),
    ],
)
def test_permissions(  # noqa: PLR0917 -- the columns of a table
    server, client, path, user, password, read_status, write_status
):
    """Bucket, user and password determine the status of each method."""
    server.put("k", b"0", "default")
    server.put("k", b"0", "private")
    login = {"user": user, "password": password}
    assert client.get(path, **login).status == read_status
    assert client.get(path.removesuffix("/k"), **login).status == read_status
    assert client.ask("PUT", path, b"1", **login).status == write_status
    assert client.ask("DELETE", path, **login).status == write_status


@pytest.mark.parametrize("header", ["Bearer abc", "Basic", "Basic ???", "Basic YWJj"])
def test_odd_authorization_headers_count_as_none(client, header):
    """A header that is not Basic, or has no user and password, counts as no password."""
    assert client.get("/private/k", headers={"Authorization": header}).status == 401


def test_a_password_may_end_with_a_newline(connect):
    """A password may end with a newline, as in Exasol's Docker test setup (``echo | base64``)."""
    bucket = BucketConfig("b", public=False, read_password="read\n")
    with BucketFSServer([bucket]) as server:
        client = connect(server)
        assert client.get("/b", user="r", password="read\n").status == 200
        assert client.get("/b", user="r", password="read").status == 403


def test_challenge(client):
    """A 401 requests Basic authentication."""
    response = client.get("/private")
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_delete_is_idempotent(server, client):
    """Deleting a missing key or the name of a folder is 200 and removes nothing."""
    server.put("d/x", b"")
    for path in ("/default/none", "/default/d"):
        assert client.delete(path).status == 200
    assert server.keys() == ["d/x"]


def test_an_object_is_not_deleted_by_the_name_of_a_folder(server, client):
    """A DELETE of ``k/`` is 400 and does not delete ``k``."""
    server.put("k", b"")
    assert client.delete("/default/k/").status == 400
    assert server.keys() == ["k"]


def test_directory_names_are_404(server, client):
    """A GET of a folder is 404, because only buckets have listings."""
    server.put("d/x", b"")
    assert client.get("/default/d").status == 404
    assert client.get("/default/d/").status == 404
    assert client.put("/default/d/", b"").status == 400


def test_overwrite_at_once(client):
    """An object can be replaced repeatedly without a delay."""
    for round_ in (b"1", b"22", b""):
        assert client.put("/default/k", round_).status == 200
        assert client.get("/default/k").body == round_


def test_lock_after_delete(connect):
    """A deleted key cannot be written for a while; other keys and reading are not affected."""
    with BucketFSServer(profile=Profile(lock_after_delete_s=0.5)) as server:
        client = connect(server)
        client.delete("/default/none")
        assert client.put("/default/none", b"").status == 200
        client.put("/default/k", b"1")
        client.delete("/default/k")
        assert client.put("/default/k", b"2").status == 423
        assert client.put("/default/other", b"2").status == 200
        assert client.get("/default/k").status == 404
        time.sleep(0.6)
        assert client.put("/default/k", b"3").status == 200
        client.delete("/default/k")
        server.reset()
        assert client.put("/default/k", b"4").status == 200
    with BucketFSServer(profile="docker-db") as server:
        server.put("k", b"1")
        client = connect(server)
        client.delete("/default/k")
        assert client.put("/default/k", b"2").status == 423


def test_minimum_duration_of_a_put(connect):
    """A PUT takes at least the profile's duration."""
    with BucketFSServer(profile=Profile(put_floor_s=0.3, put_bytes_per_s=1e6)) as server:
        started = time.monotonic()
        assert connect(server).put("/default/k", bytes(100_000)).status == 200
        assert time.monotonic() - started >= 0.4


def test_object_beside_a_folder(server, client):
    """``d`` can be written although ``d/x`` exists; both are listed and can be read."""
    client.put("/default/d/x", b"inner")
    assert client.put("/default/d", b"outer").status == 200
    assert server.keys() == ["d", "d/x"]
    assert (client.get("/default/d").body, client.get("/default/d/x").body) == (b"outer", b"inner")


def test_file_in_the_way_loses(server, client):
    """``d/x`` is answered with 200 and lost while ``d`` is a file."""
    client.put("/default/d", b"")
    assert client.put("/default/d/x/y", b"lost").status == 200
    assert server.keys() == ["d"]
    client.delete("/default/d")
    assert client.put("/default/d/x/y", b"kept").status == 200
    assert server.keys() == ["d/x/y"]


def test_file_in_the_way_options(connect):
    """A PUT of ``d/x`` while ``d`` is a file can be an error, or remain without a response."""
    with BucketFSServer(file_in_the_way="error") as server:
        server.put("d", b"")
        assert connect(server).put("/default/d/x", b"").status == 409
    with BucketFSServer(file_in_the_way="hang") as server:
        server.put("d", b"")
        client = connect(server)
        client.connection.timeout = 0.5
        with pytest.raises(TimeoutError):
            client.put("/default/d/x", b"")
        assert server.keys() == ["d"]
    with pytest.raises(ValueError, match="choose one of"):
        BucketFSServer(file_in_the_way="explode")


def test_bodies_without_length(server, client):
    """A chunked PUT is accepted, and so is one without a body (a file of size zero)."""
    parts = [b"one", b"two" * 50_000, b"three"]
    assert client.put("/default/c", iter(parts), encode_chunked=True).status == 200
    assert server.read("c") == b"".join(parts)
    assert client.put("/default/empty", None).status == 200
    assert server.read("empty") == b""


def test_gzip_is_only_declared(server, client):
    """``.gz`` and ``.tgz`` are declared as gzip-encoded, but the stored bytes are sent."""
    for key in ("m.tar.gz", "m.tgz", "x.gz"):
        server.put(key, b"not even gzip")
        response = client.get(f"/default/{key}")
        assert (response.headers["Content-Encoding"], response.body) == ("gzip", b"not even gzip")
    server.put("plain.txt", b"")
    assert client.get("/default/plain.txt").headers["Content-Encoding"] is None
    assert client.get("/default/m.tar.gz").headers["Content-Type"] == "application/x-tar"


def test_download_without_length(connect):
    """Without Content-Length, a download is chunked."""
    with BucketFSServer(content_length=False) as server:
        server.put("k", b"abc" * 1_000_000)
        response = connect(server).get("/default/k")
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.body == b"abc" * 1_000_000


def test_shuffled_listing(connect):
    """With ``shuffle_listing``, a listing has a random order."""
    with BucketFSServer(shuffle_listing=True) as server:
        keys = [str(i) for i in range(100)]
        server.put_many((key, b"") for key in keys)
        response = connect(server).get("/default")
        assert response.body.decode().split() != keys
        assert sorted(response.body.decode().split()) == sorted(keys)
