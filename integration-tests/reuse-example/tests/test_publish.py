"""The uploader against an embedded BucketFS: success and failures."""

from __future__ import annotations

from urllib.error import HTTPError

import pytest
from churn_report.publish import publish
from mlflow_bucketfs_testing import Fault, factories

# One server per test: it starts in milliseconds, and each test begins with an empty bucket.
bucketfs_server = factories.bucketfs_server(scope="function")


@pytest.fixture
def reports(tmp_path):
    """A folder with two reports."""
    (tmp_path / "2026").mkdir()
    (tmp_path / "2026" / "may #1.csv").write_text("customer,churned\n")
    (tmp_path / "index.txt").write_text("one report")
    return tmp_path


def test_reports_arrive(bucketfs_server, reports):
    """The reports are in the bucket, and a UDF sees them below /buckets."""
    published = publish(reports, f"{bucketfs_server.url}/default", password="write")
    assert published == sorted(bucketfs_server.keys()) == ["2026/may #1.csv", "index.txt"]
    assert bucketfs_server.read("index.txt") == b"one report"
    assert (bucketfs_server.mount_root / "bfsdefault" / "default" / "2026" / "may #1.csv").is_file()


def test_a_transient_error_is_retried(bucketfs_server, reports):
    """A transient error causes one more request."""
    bucketfs_server.inject(Fault.status(503, method="PUT"))
    publish(reports, f"{bucketfs_server.url}/default", password="write")
    assert bucketfs_server.requests.count(method="PUT") == 3
    assert len(bucketfs_server.keys()) == 2


def test_a_wrong_password_is_reported_at_once(bucketfs_server, reports):
    """A rejected password is not retried."""
    with pytest.raises(HTTPError, match="403"):
        publish(reports, f"{bucketfs_server.url}/default", password="wrong")
    assert bucketfs_server.requests.count(method="PUT") == 1
    assert bucketfs_server.keys() == []
