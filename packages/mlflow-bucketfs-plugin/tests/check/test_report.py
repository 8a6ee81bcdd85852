"""Tests of ``mlflow-bucketfs check``: the report as text and as JSON."""

from __future__ import annotations


def test_working_store(server, check, step_names):
    """A working store passes every step with few requests and keeps no probe object."""
    checked = check(server.uri(path="mlflow/artifacts"))
    assert checked.exit_code == 0
    assert checked.names("skipped") == ["tls"]
    assert len(checked.names("ok")) == len(step_names) - 1
    assert server.keys() == []
    sent = [(record.method, record.bucket) for record in server.requests]
    assert sent == [
        ("GET", ""),
        ("GET", "default"),
        ("GET", "default"),  # the upload itself checks for a file in the way
        ("PUT", "default"),
        ("GET", "default"),
        ("DELETE", "default"),
    ]
    (key,) = {record.key for record in server.requests if record.method == "PUT"}
    assert key.startswith("mlflow/artifacts/.mlflow-bucketfs-check-")


def test_text(server, run, step_names):
    """Each step has a line with its result, in columns, and the last line is the verdict."""
    result = run(server.uri())
    *lines, blank, verdict = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[1] for line in lines] == step_names
    assert {line.split()[0] for line in lines} == {"ok", "skipped"}
    assert len({line.index(" s  ") for line in lines}) == 1
    assert blank == ""
    assert verdict == f"Everything needed works for {server.uri()}."


def test_text_below_a_failed_step(server, run):
    """Details and remedy are printed below the failed step, and the verdict names it."""
    result = run(server.uri(), password="")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[index].split()[1] == "write"
    assert lines[index + 1].lstrip().startswith("> Set EXA_BUCKETFS_PASSWORD")
    assert lines[-1].endswith(": write")


def test_read_only_writes_nothing(server, check):
    """With --read-only nothing is written, and a bucket without a password passes."""
    checked = check(server.uri(), "--read-only", password="")
    assert checked.exit_code == 0
    assert {checked[name]["result"] for name in ("write", "read_back", "delete")} == {"skipped"}
    assert "--read-only" in checked["delete"]["summary"]
    assert {record.method for record in server.requests} == {"GET"}


def test_listing_is_measured(server, check):
    """The listing's size and the number of objects, also below the URI, are reported."""
    server.put_many([("a/1", b""), ("a/2", b""), ("ab", b"")])
    checked = check(server.uri(path="a"))
    assert checked["list"]["details"] == {"objects": 3, "listing_bytes": 11}
    assert checked["path"]["details"] == {"objects_below": 2}
