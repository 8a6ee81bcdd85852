"""Passwords: the operations that they allow, and the errors of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mlflow_bucketfs_core import Bucket, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    MissingCredentialsError,
)
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer


@pytest.mark.parametrize(
    ("name", "login", "refusals"),
    [
        pytest.param("default", ("w", None), (None, MissingCredentialsError), id="public-none"),
        pytest.param("default", ("r", "read"), (None, AccessDeniedError), id="public-read"),
        pytest.param("default", ("w", "wrong"), (None, AccessDeniedError), id="public-wrong"),
        pytest.param("default", ("w", "write"), (None, None), id="public-write"),
        pytest.param(
            "private",
            ("w", None),
            (AuthenticationError, MissingCredentialsError),
            id="private-none",
        ),
        pytest.param("private", ("r", "read"), (None, AccessDeniedError), id="private-read"),
        pytest.param("private", ("w", "wrong"), (AccessDeniedError,) * 2, id="private-wrong"),
        pytest.param("private", ("r", "write"), (AccessDeniedError,) * 2, id="private-user"),
        pytest.param("private", ("w", "write"), (None, None), id="private-write"),
    ],
)
def test_allowed_operations(server, tmp_path, name, login, refusals):
    """A refused operation raises the matching error, with the variable to set."""
    server.put("there", b"1", bucket=name)
    bucket = Bucket(server.uri(name), ConnectionSettings(*login))
    reading = [
        bucket.keys,
        lambda: bucket.exists("there"),
        lambda: bucket.download_file("there", tmp_path / "x"),
    ]
    writing = [lambda: bucket.upload_bytes("new", b"1"), lambda: bucket.delete("there")]
    for operations, error in zip((reading, writing), refusals, strict=True):
        for operation in operations:
            server.requests.clear()
            if error is None:
                operation()
                continue
            with pytest.raises(error, match="EXA_BUCKETFS_PASSWORD") as caught:
                operation()
            assert isinstance(caught.value, PermissionError)
            assert len(server.requests) == (error is not MissingCredentialsError)


def test_a_bucket_keeps_its_settings(server, monkeypatch):
    """The environment is read when a bucket is created, and not again."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "write")
    bucket = Bucket(server.uri())
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", "wrong")
    bucket.upload_bytes("x", b"1")
    assert server.keys() == ["x"]


def test_a_stream_is_not_read_without_a_password(server):
    """An upload without a password fails before the stream is read."""
    source = iter([b"1"])
    with pytest.raises(MissingCredentialsError):
        Bucket(server.uri(), ConnectionSettings()).upload_stream("x", source)
    assert next(source) == b"1"


@pytest.mark.parametrize("password", ["ß模", "a:b", " x ", "p%41@/#?", "\udcff"], ids=ascii)
def test_any_password_works(settings, password):
    """Passwords are sent as UTF-8; bytes of the environment that are not UTF-8 are unchanged."""
    expected = password.encode("utf-8", "surrogateescape")
    try:
        known = expected.decode()
    except UnicodeDecodeError:
        known = expected.decode("latin-1")
    with BucketFSServer([BucketConfig("default", write_password=known)]) as server:
        Bucket(server.uri(), replace(settings, password=password)).upload_bytes("x", b"1")
        assert server.keys() == ["x"]
