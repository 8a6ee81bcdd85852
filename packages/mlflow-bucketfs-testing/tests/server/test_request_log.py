"""What the server was asked, as a test reads it."""

from __future__ import annotations

import time

from mlflow_bucketfs_testing.server import BucketFSServer


def test_request_log(server, client):
    """The log has what was asked, by whom, over which connection; it is bounded."""
    client.put("/default/a%20b", b"12345")
    client.get("/default/a%20b")
    client.get("/default/")
    put, get, listing = server.requests
    assert (put.method, put.bucket, put.key, put.user) == ("PUT", "default", "a b", "w")
    assert (put.path, put.status, put.bytes_received, put.bytes_sent) == (
        "/default/a%20b",
        200,
        5,
        0,
    )
    assert (get.bytes_received, get.bytes_sent, get.user) == (0, 5, None)
    assert (listing.key, listing.bytes_sent) == ("", 4)
    assert put.connection == get.connection
    assert 0 < put.duration_s < 60
    assert abs(put.started - time.time()) < 60
    requests = server.requests
    assert (len(requests), requests.count(), requests.connections, requests.listings) == (
        3,
        3,
        1,
        1,
    )
    assert requests.count(method="GET") == requests.count(key="a*", status=200) == 2
    assert [record.method for record in requests[1:]] == ["GET", "GET"]
    requests.clear()
    assert (len(requests), requests.connections) == (0, 0)
    client.get("/")
    assert (requests.connections, requests.listings) == (1, 0)


def test_request_log_is_bounded(connect):
    """Only the latest requests are kept."""
    with BucketFSServer(request_log_size=3) as server:
        client = connect(server)
        for number in range(5):
            client.get(f"/default/{number}")
        assert [record.key for record in server.requests] == ["2", "3", "4"]
