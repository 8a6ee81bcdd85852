"""Tests of ``mlflow-bucketfs check``: passwords, buckets, and writing into a bucket."""

from __future__ import annotations

import pytest
from mlflow_bucketfs_testing.server import Fault


def test_wrong_password_for_a_private_bucket(server, check):
    """A rejected password is reported, with the variables to set."""
    checked = check(server.uri("private"), password="wrong")
    assert checked.names("failed") == ["list"]
    assert "rejected the password for user w" in checked["list"]["summary"]
    assert "EXA_BUCKETFS_PASSWORD" in checked["list"]["remedy"]
    assert "If it is the read password, set EXA_BUCKETFS_USER=r" in checked["list"]["remedy"]


def test_read_password_with_the_user_for_writing(server, check):
    """The advice for a read password that was set without its user works."""
    read_only = (server.uri("private"), "--read-only")
    assert check(*read_only, password="read").names("failed") == ["list"]
    assert check(*read_only, password="read", EXA_BUCKETFS_USER="r").exit_code == 0


def test_no_password_for_a_private_bucket(server, check):
    """A missing password is reported as missing, not as wrong."""
    checked = check(server.uri("private"), password="")
    assert checked.names("failed") == ["list"]
    assert "none is set" in checked["list"]["summary"]


def test_no_password_for_a_public_bucket(server, check):
    """A public bucket is read without a password, and only writing fails."""
    checked = check(server.uri(), password="")
    assert checked.names("failed") == ["write"]
    assert "EXA_BUCKETFS_PASSWORD" in checked["write"]["remedy"]
    assert "--read-only" in checked["write"]["remedy"]


def test_wrong_password_for_a_public_bucket(server, check):
    """A public bucket is read with any password, so a wrong one fails only the step that writes."""
    checked = check(server.uri(), password="wrong")
    assert checked.names("failed") == ["write"]
    assert "password is wrong" in checked["write"]["remedy"]
    assert "write password" in checked["write"]["remedy"]
    assert server.keys() == []


@pytest.mark.parametrize("bucket", ["default", "private"])
def test_read_only_password(server, bucket, check):
    """A read password passes with --read-only, and fails without it with a remedy."""
    reader = {"password": "read", "EXA_BUCKETFS_USER": "r"}
    checked = check(server.uri(bucket), **reader)
    assert checked.names("failed") == ["write"]
    assert "user r only reads" in checked["write"]["remedy"]
    assert "--read-only" in checked["write"]["remedy"]
    assert check(server.uri(bucket), "--read-only", **reader).exit_code == 0


def test_missing_bucket(server, check):
    """A missing bucket fails, and the remedy lists the existing ones."""
    checked = check(server.uri().replace("/default", "/models"))
    assert checked.names("failed") == ["list"]
    assert "no bucket 'models'" in checked["list"]["summary"]
    known, advice = checked["list"]["remedy"].splitlines()
    assert known == "The buckets there are: default, private"
    assert advice.endswith(server.uri(path="models"))


def test_missing_service(server, check):
    """A bucket in the position of the service is recognised, and the proposed URI works."""
    checked = check(f"exa+bfs://127.0.0.1:{server.port}/default/mlflow/artifacts")
    assert checked.names("failed") == ["list"]
    remedy = checked["list"]["remedy"]
    assert "default, private" in remedy
    assert "Is the service missing" in remedy
    assert checked["service"]["remedy"] is None
    proposed = remedy.split()[-1]
    assert proposed == server.uri(path="mlflow/artifacts")
    assert check(proposed).exit_code == 0


def test_missing_service_or_bucket(server, check):
    """If no name is that of a bucket, the remedy shows how the URI was parsed."""
    checked = check(f"exa+bfs://127.0.0.1:{server.port}/models/mlflow/artifacts")
    assert checked.names("failed") == ["list"]
    remedy = checked["list"]["remedy"]
    assert "default, private" in remedy
    assert "service or the bucket missing" in remedy
    assert "service 'models', bucket 'mlflow', folder 'artifacts'" in remedy


@pytest.mark.parametrize("path", ["mlflow", "mlflow/artifacts"])
def test_path_blocked_by_a_file(server, path, check):
    """A file in the way is named, and nothing is written."""
    server.put("mlflow", b"")
    checked = check(server.uri(path=path))
    assert checked.names("failed") == ["path"]
    assert checked["path"]["details"]["file_in_the_way"] == "mlflow"
    assert server.requests.count(method="PUT") == 0


def test_uri_of_a_file_may_be_read(server, check):
    """With --read-only a URI may name a single file."""
    server.put("mlflow/model.pkl", b"")
    assert check(server.uri(path="mlflow/model.pkl"), "--read-only").exit_code == 0


def test_upload_that_gets_lost(server, check):
    """An upload that is answered with 200 and lost is noticed by reading it back."""
    server.inject(Fault.lose(method="PUT"))
    checked = check(server.uri())
    assert checked.names("failed") == ["read_back"]
    assert checked["delete"]["result"] == "ok"


def test_object_is_deleted_when_it_cannot_be_read_back(server, check):
    """The probe object is deleted also if reading it back failed."""
    server.inject(Fault.status(500, method="GET", key="*check*", times=None))
    checked = check(server.uri())
    assert checked.names("failed") == ["read_back"]
    assert server.requests.count(method="PUT", status=200) == 1
    assert server.keys() == []


def test_object_is_deleted_when_the_response_to_the_upload_is_lost(server, check):
    """If the response to the upload is lost, the object may be stored, and is deleted."""
    server.inject(Fault.reset_before_body(method="PUT", times=None))
    checked = check(server.uri())
    assert checked.names("failed") == ["write"]
    assert server.requests.count(method="PUT") > 0
    assert server.keys() == []


def test_object_that_cannot_be_deleted_is_named(server, check):
    """If the probe object cannot be deleted, the remedy names its key."""
    server.inject(Fault.status(403, method="DELETE"))
    checked = check(server.uri(path="a"))
    assert checked.names("failed") == ["delete"]
    (key,) = server.keys()
    assert key in checked["delete"]["remedy"]
