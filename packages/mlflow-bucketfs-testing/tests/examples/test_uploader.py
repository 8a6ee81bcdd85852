"""Test a program that uploads to BucketFS, against the embedded server."""

from __future__ import annotations

import requests


def upload_report(url: str, password: str, lines: list[str]) -> None:
    """Upload a report: the program under test."""
    body = "\n".join(lines).encode()
    target = f"{url}/reports/today.csv"
    requests.put(target, data=body, auth=("w", password), timeout=10)


def test_report_arrives(bucketfs_server):
    """The report is in the bucket, and a UDF would see it under ``/buckets``."""
    upload_report(f"{bucketfs_server.url}/default", "write", ["id,amount", "1,20"])

    assert bucketfs_server.read("reports/today.csv") == b"id,amount\n1,20"
    mounted = bucketfs_server.mount_root / "bfsdefault/default/reports/today.csv"
    assert mounted.read_text(encoding="utf-8").startswith("id,amount")
