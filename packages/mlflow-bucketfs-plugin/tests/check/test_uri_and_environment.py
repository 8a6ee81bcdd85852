"""Tests of ``mlflow-bucketfs check``: the URI and the environment variables."""

from __future__ import annotations

import pytest


def test_password_in_uri_is_not_repeated(check, run, secret):
    """A URI with a password is refused without showing the password, in both formats."""
    uri = f"exa+bfs://w:{secret}@db.example.com/bfsdefault/default"
    checked = check(uri)
    assert checked.exit_code == 1
    assert checked.uri is None
    assert "EXA_BUCKETFS_PASSWORD" in checked["uri"]["summary"]
    assert secret not in run(uri).output


@pytest.mark.parametrize("uri", ["s3://bucket", "exa+bfs://", "nonsense", ""])
def test_no_uri_of_bucketfs(uri, check):
    """A text that is not a BucketFS URI fails the first step, and dependent steps are skipped."""
    checked = check(uri)
    assert checked.names("failed") == ["uri"]
    assert checked.names("ok") == ["environment"]
    assert "exa+bfs://host" in checked["uri"]["remedy"]


def test_uri_without_bucket(server, check):
    """A URI that ends before the bucket fails, and the existing buckets are still reported."""
    checked = check(server.uri().rpartition("/")[0])
    assert checked.names("failed") == ["uri"]
    assert checked["service"]["details"]["buckets"] == ["default", "private"]
    assert checked["list"]["summary"] == "needs the step 'uri', which failed"
    assert checked["uri"]["remedy"].split()[-1] == server.uri()


def test_uri_with_one_name(server, check):
    """The remedy for a URI with one name covers both a bucket and a service."""
    checked = check(f"exa+bfs://127.0.0.1:{server.port}/default")
    assert checked.names("failed") == ["uri"]
    of_bucket, of_service = checked["uri"]["remedy"].splitlines()
    assert of_bucket.endswith(server.uri())
    assert "append the bucket" in of_service


def test_uri_without_service(server, check):
    """The remedy for a URI with only a host proposes the usual service and bucket."""
    checked = check(f"exa+bfs://127.0.0.1:{server.port}")
    assert checked.names("failed") == ["uri"]
    assert checked["uri"]["remedy"].endswith(server.uri())


def test_bad_environment_variable(server, check):
    """An invalid variable is named, and no request is sent."""
    checked = check(server.uri(), EXA_BUCKETFS_MAX_WORKERS="many")
    assert checked.names("failed") == ["environment"]
    assert checked["environment"]["remedy"] == "Correct or unset EXA_BUCKETFS_MAX_WORKERS."
    assert checked["resolve"]["result"] == "ok"
    assert server.requests.connections == 0


@pytest.mark.parametrize("allowed", ["db.example.com:2581", "127.0.0.1:{port}"])
def test_host_that_is_not_allowed(server, check, allowed):
    """A host that is not allowed, or only for HTTPS, gets no connection."""
    checked = check(server.uri(), EXA_BUCKETFS_ALLOWED_HOSTS=allowed.format(port=server.port))
    assert checked.names("failed") == ["allowed_hosts"]
    assert f"add exa+bfs://127.0.0.1:{server.port} to" in checked["allowed_hosts"]["remedy"]
    assert "plain HTTP" in checked["allowed_hosts"]["summary"]
    assert server.requests.connections == 0


def test_host_that_is_allowed(server, check):
    """A host in EXA_BUCKETFS_ALLOWED_HOSTS passes."""
    allowed = f"db.example.com,exa+bfs://127.0.0.1:{server.port}"
    assert check(server.uri(), EXA_BUCKETFS_ALLOWED_HOSTS=allowed).exit_code == 0
