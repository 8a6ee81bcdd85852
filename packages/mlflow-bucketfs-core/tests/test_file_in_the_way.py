"""Uploads to ``d/x`` where ``d`` is a file, which BucketFS would lose silently."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow_bucketfs_core import Bucket, folder_guard
from mlflow_bucketfs_core.errors import PathBlockedError
from mlflow_bucketfs_testing.server import BucketFSServer


@pytest.mark.parametrize("behaviour", ["lose", "hang", "error"])
def test_a_file_in_the_way_is_named(settings, behaviour):
    """An upload to ``d/x`` is refused before any PUT, and the error names the file ``d``."""
    with BucketFSServer(file_in_the_way=behaviour) as server:
        server.put("top/d", b"file")
        bucket = Bucket(server.uri(), settings)
        for key in ("top/d/x", "top/d/e/x"):
            with pytest.raises(PathBlockedError, match="default/top/d'"):
                bucket.upload_bytes(key, b"lost")
        with pytest.raises(NotADirectoryError):
            bucket.prepare_uploads(["top/a", "top/d/x"])
        assert server.keys() == ["top/d"]
        assert server.requests.count(method="PUT") == 0
        bucket.upload_bytes("top/dd/x", b"fine")


def test_a_folder_that_becomes_a_file_is_noticed(server, bucket):
    """A known folder is forgotten when this process writes a file of its name."""
    bucket.upload_bytes("turn/d/x", b"1")
    bucket.delete("turn/d/x")
    bucket.upload_bytes("turn/d", b"now a file")
    with pytest.raises(PathBlockedError, match="turn/d'"):
        bucket.upload_bytes("turn/d/x", b"lost")
    bucket.delete("turn/d")
    bucket.upload_bytes("turn/d/x", b"again")
    assert server.read("turn/d/x") == b"again"


def test_a_file_and_a_folder_of_one_name_block_further_uploads(server, bucket):
    """The file ``d`` can be written beside ``d/x``, and blocks later uploads below it."""
    bucket.upload_bytes("both/d/x", b"1")
    bucket.upload_bytes("both/d", b"2")
    assert server.keys() == ["both/d", "both/d/x"]
    with pytest.raises(PathBlockedError):
        bucket.upload_bytes("both/d/y", b"lost")


def test_a_folder_listed_during_an_upload_of_its_name_is_forgotten(server, bucket):
    """The result of a listing during an upload is not used after the upload."""

    class WaitsForTheFolder(io.BytesIO):
        def read(self, size=-1):
            if not being_sent.is_set():
                being_sent.set()
                assert folder_is_there.wait(30)
            return super().read(size)

    being_sent, folder_is_there = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(bucket.upload_fileobj, "race/d", WaitsForTheFolder(b"file"))
        assert being_sent.wait(30)
        bucket.upload_bytes("race/d/x", b"1")
        folder_is_there.set()
        upload.result(30)
    assert server.keys() == ["race/d", "race/d/x"]
    with pytest.raises(PathBlockedError, match="race/d'"):
        bucket.upload_bytes("race/d/y", b"lost")


@pytest.fixture
def clock(monkeypatch):
    """The guard's clock, set by the test."""

    class Clock:
        now = 1.0  # as on a computer that has just started

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(folder_guard, "time", clock)
    return clock


def test_a_folder_that_another_client_made_a_file_is_noticed(own_server, settings, clock):
    """The result of a listing is used for one minute only."""
    bucket = Bucket(own_server.uri(), settings)
    bucket.upload_bytes("runs/a", b"1")
    own_server.delete("runs/a")
    own_server.put("runs", b"of another process")
    clock.now += 61
    with pytest.raises(PathBlockedError, match="default/runs'"):
        bucket.upload_bytes("runs/b", b"lost")
    with pytest.raises(PathBlockedError, match="default/runs'"):
        bucket.upload_stream("runs/b", [b"lost"])
    own_server.delete("runs")
    bucket.upload_bytes("runs/b", b"stored")
    assert own_server.read("runs/b") == b"stored"


def test_prepare_uploads_always_lists_the_bucket(own_server, settings):
    """Each call sends one listing and returns the existing keys; without keys, no request."""
    bucket = Bucket(own_server.uri(), settings)
    assert bucket.prepare_uploads([]) == set()
    assert own_server.requests.connections == 0
    assert bucket.prepare_uploads(["runs/a", "top"]) == set()
    bucket.upload_bytes("runs/a", b"1")
    bucket.upload_bytes("top", b"1")
    assert own_server.requests.listings == 1
    assert bucket.prepare_uploads(["runs//a", "runs/a", "top", "runs", "runs/b"]) == {
        "runs//a",
        "runs/a",
        "top",
    }
    own_server.delete("runs/a")
    own_server.put("runs", b"of another process")
    with pytest.raises(PathBlockedError, match="default/runs'"):
        bucket.prepare_uploads(["runs/b"])
    assert own_server.requests.listings == 3


def test_one_listing_in_a_minute_is_enough_for_all_folders(own_server, settings, clock):
    """A listing renews all known folders, not only that of the upload."""
    bucket = Bucket(own_server.uri(), settings)
    keys = [f"many/{number}/x" for number in range(9)]
    bucket.prepare_uploads(keys)
    for minute in range(3):
        for key in keys:
            bucket.upload_bytes(key, b"1")
        assert own_server.requests.listings == 1 + minute
        clock.now += 61


def test_the_number_of_known_folders_is_limited(server, bucket, monkeypatch):
    """The oldest known folder is forgotten, and then needs a new listing."""
    monkeypatch.setattr(folder_guard, "_MAX_FOLDERS", 2)
    for folder in ("bound 1", "bound 2", "bound 2", "bound 3", "bound 1"):
        bucket.upload_bytes(f"{folder}/x", b"1")
    assert server.requests.listings == 4
    assert len(folder_guard.folder_guard(bucket.uri)._known) == 2
