"""Tests of untrusted names: messages escape them, and listings leave out invalid ones."""

from __future__ import annotations

import io
import logging
import os
import zipfile

import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

# Terminal escape sequences, bytes that are not UTF-8, and names that no path can have
UNUSABLE = ("\x1b[2J", "\x9b2J", "\udcff", "a\tb", "\0", ".", "..")
# Legal in a key, but reverses the direction of the text that follows
REVERSED = "a\u202eb"


def messages(caplog):
    """Return the logged messages, after checking that all are printable."""
    found = [record.getMessage() for record in caplog.records]
    assert all(message.isprintable() for message in found)
    return found


def names(repo, path=None):
    """Return the names in a folder, encoded as by MLflow's server: protobuf accepts only UTF-8."""
    return [info.to_proto().path for info in repo.list_artifacts(path)]


def test_unusable_names_are_left_out_of_a_listing(hostile_server, caplog):
    """Keys that are invalid as artifact names are logged; the others are listed."""
    below = [f"root/{name}{tail}" for name in UNUSABLE for tail in ("", "/x")]
    hostile_server.keys = ["root/a", *below, "root/größe/x", f"root/{REVERSED}"]
    repo = BucketFSArtifactRepository(hostile_server.uri)
    caplog.clear()  # a warning about a further host depends on earlier tests
    assert names(repo) == ["a", REVERSED, "größe"]
    (message,) = messages(caplog)
    assert message.endswith(r": \x00, \x1b[2J, ., .., a\tb, \x9b2J, \udcff")
    caplog.clear()
    assert names(repo, "größe") == ["größe/x"]
    assert not caplog.records


def test_unusable_names_on_the_mount(mounted, bucket_on_mount, caplog):
    """A folder on the mount is listed without names that MLflow cannot encode."""
    (bucket_on_mount / "root" / os.fsdecode(b"plots/\xff")).write_bytes(b"")
    assert names(mounted, "plots") == ["plots/a.png"]
    (message,) = messages(caplog)
    assert message.endswith(r": \udcff")


def test_unusable_names_in_a_tracking_server_with_a_mount(hostile_server, tmp_path, monkeypatch):
    """A tracking server with a mount leaves out invalid names, and reads no sizes for them."""
    (tmp_path / "s/b/root").mkdir(parents=True)
    (tmp_path / "s/b/root/a").write_bytes(b"123")
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(tmp_path))
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", hostile_server.uri)
    hostile_server.keys = ["root/a", *(f"root/{name}" for name in UNUSABLE)]
    repo = BucketFSArtifactRepository(hostile_server.uri)
    assert [(info.path, info.file_size) for info in repo.list_artifacts()] == [("a", 3)]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([f"root/d/{name}" for name in UNUSABLE], id="several"),
        pytest.param(["root/d/\x1b[2J/MLmodel"], id="model"),
        pytest.param([f"root/d/{REVERSED}"], id="legal"),
    ],
)
def test_deletion_shows_names_escaped(hostile_server, keys):
    """The error of a deletion, which ``mlflow gc`` prints, shows names escaped."""
    hostile_server.keys = keys
    with pytest.raises(MlflowException) as caught:
        BucketFSArtifactRepository(hostile_server.uri).delete_artifacts("d")
    lines = str(caught.value).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any(f"root/d/{ascii(keys[0][7:])[1:-1]}" in line for line in lines)


def test_an_artifact_that_is_missing_is_named_escaped(repo):
    """The error for a missing artifact shows its name escaped."""
    with pytest.raises(MlflowException, match="There is no artifact") as caught:
        repo.download_artifacts(REVERSED)
    assert str(caught.value).isprintable()


def test_an_upload_shows_names_escaped(server, repo, local, caplog):
    """Warnings and errors of an upload show names escaped."""
    server.put(f"root/m/{REVERSED}/MLmodel", b"flavors: {}\n")
    model = f"m/{REVERSED}"
    archive = io.BytesIO()
    zipfile.ZipFile(archive, "w").close()
    files = {f"{model}/MLmodel": b"", f"{model}/x.zip": archive.getvalue()}
    directory = local.write(files)
    (directory / model / "empty").mkdir()
    (directory / model / "unreadable").symlink_to("/proc/self/mem")
    with pytest.raises(MlflowException) as caught:
        repo.log_artifacts(directory)
    *_, held_back = str(caught.value).splitlines()
    assert held_back == r"Not uploaded, because other files failed: m/a\u202eb/MLmodel"
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert len(messages(caplog)) == 2


def test_the_reason_in_an_mlmodel_is_logged_escaped(server, repo, caplog):
    """The reason in an MLmodel, which is untrusted text, is logged escaped."""
    server.put("root/m/MLmodel", b"incomplete_upload: \x1b[2J \xff\n")
    repo.download_artifacts("m")
    (message,) = messages(caplog)
    assert message.endswith(r"/MLmodel: \x1b[2J " + "\N{REPLACEMENT CHARACTER}")


def test_reading_from_the_mount_logs_names_escaped(mounted, server, local, caplog):
    """Paths on the mount are logged escaped."""
    server.put(f"root/{REVERSED}/MLmodel", b"flavors: {}\nmodel_size_bytes: 99")
    with caplog.at_level(logging.INFO, "mlflow_bucketfs_plugin"):
        mounted.download_artifacts(REVERSED)
        with pytest.raises(MlflowException):
            mounted.download_artifacts(
                f"1/models/m-{'0a' * 16}/artifacts/{REVERSED}", str(local.root)
            )
        with pytest.raises(MlflowException):
            mounted.download_artifacts(f"{REVERSED}.zip")
    assert len([m for m in messages(caplog) if r"a\u202eb" in m]) >= 5


def test_check_prints_names_escaped(server):
    """The command check prints names escaped."""
    printed = CliRunner().invoke(main, ["check", server.uri(path=REVERSED)]).stdout
    assert r"folder 'a\u202eb'" in printed
    assert all(line.isprintable() for line in printed.splitlines())


def test_constraints_prints_names_escaped(local):
    """The command constraints prints the names of a model's files escaped."""
    model = local.write({"requirements.txt": b"", "\x1b[2J.pkl": b"numpy._core"}, "model")
    constraints = local.write({"constraints.txt": b"numpy==1.26.4\n"}, "slc") / "constraints.txt"
    printed = CliRunner().invoke(main, ["constraints", str(model), str(constraints)]).stdout
    assert r"\x1b[2J.pkl" in printed
    assert all(line.isprintable() for line in printed.splitlines())


def test_copy_prints_names_escaped(server, local):
    """The command copy prints the target escaped, on success and on failure."""
    source, target = str(local.write({"f": b""})), server.uri(path=REVERSED)
    copied = CliRunner().invoke(main, ["copy", source, target])
    refused = CliRunner().invoke(main, ["copy", source, target])
    assert (copied.exit_code, refused.exit_code) == (0, 1)
    for printed in (copied.output, refused.output):
        assert r"/a\u202eb" in printed
        assert all(line.isprintable() for line in printed.splitlines())
