"""What ``mlflow-bucketfs check`` reports about the mount."""

from __future__ import annotations


def test_mount_that_is_used(server, check):
    """Where the bucket is mounted, reading takes the mount, and whose it is can be set."""
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
    """A mount root that was set, but lacks the bucket, is worth a warning."""
    checked = check(server.uri(), EXA_BUCKETFS_MOUNT_ROOT=str(tmp_path))
    assert checked.exit_code == 0
    assert checked.names("warning") == ["mount"]
