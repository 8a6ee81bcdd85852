"""Tests of ``mlflow-bucketfs check``: the mount."""

from __future__ import annotations


def test_mount_that_is_used(server, check):
    """A mounted bucket is reported as used, with the variable that restricts it to hosts."""
    root = str(server.mount_root)
    checked = check(server.uri(), EXA_BUCKETFS_MOUNT_ROOT=root)
    details = checked["mount"]["details"]
    assert details == {"directory": f"{root}/bfsdefault/default", "exists": True, "used": True}
    assert "EXA_BUCKETFS_MOUNT_HOSTS" in checked["mount"]["remedy"]


def test_mount_of_other_hosts(server, check):
    """A mount that EXA_BUCKETFS_MOUNT_HOSTS reserves for other hosts is not used."""
    checked = check(
        server.uri(),
        EXA_BUCKETFS_MOUNT_ROOT=str(server.mount_root),
        EXA_BUCKETFS_MOUNT_HOSTS="db.example.com",
    )
    assert checked["mount"]["result"] == "ok"
    assert checked["mount"]["details"]["used"] is False


def test_mount_root_without_the_bucket(server, tmp_path, check):
    """An explicit mount root without the bucket is a warning."""
    checked = check(server.uri(), EXA_BUCKETFS_MOUNT_ROOT=str(tmp_path))
    assert checked.exit_code == 0
    assert checked.names("warning") == ["mount"]
