"""Names that others have chosen: no message shows them raw, and none hides a folder."""

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

# Commands of a terminal, bytes of no UTF-8, and what no path can have
UNUSABLE = ("\x1b[2J", "\x9b2J", "\udcff", "a\tb", "\0", ".", "..")
# Legal in a key, but it shows the rest of a line from right to left
REVERSED = "a\u202eb"


def messages(caplog):
    """What was logged, each as one line that a terminal only shows."""
    found = [record.getMessage() for record in caplog.records]
    assert all(message.isprintable() for message in found)
    return found


def names(repo, path=None):
    """The names in a folder, as MLflow's server encodes them: protobuf takes UTF-8 only."""
    return [info.to_proto().path for info in repo.list_artifacts(path)]


def test_unusable_names_are_left_out_of_a_listing(hostile_server, caplog):
    """Keys that MLflow can neither encode nor ask for are logged; the others are listed."""
    below = [f"root/{name}{tail}" for name in UNUSABLE for tail in ("", "/x")]
    hostile_server.keys = ["root/a", *below, "root/größe/x", f"root/{REVERSED}"]
    repo = BucketFSArtifactRepository(hostile_server.uri)
    caplog.clear()  # of a warning about one more host, depending on the tests before
    assert names(repo) == ["a", REVERSED, "größe"]
    (message,) = messages(caplog)
    assert message.endswith(r": \x00, \x1b[2J, ., .., a\tb, \x9b2J, \udcff")
    caplog.clear()
    assert names(repo, "größe") == ["größe/x"]
    assert not caplog.records


def test_unusable_names_on_the_mount(mounted, bucket_on_mount, caplog):
    """A folder of an unpacked archive is listed without what MLflow cannot encode."""
    (bucket_on_mount / "root" / os.fsdecode(b"plots/\xff")).write_bytes(b"")
    assert names(mounted, "plots") == ["plots/a.png"]
    (message,) = messages(caplog)
    assert message.endswith(r": \udcff")


def test_unusable_names_in_a_tracking_server_with_a_mount(hostile_server, tmp_path, monkeypatch):
    """A server that takes sizes from the mount looks for none of the names that it leaves out."""
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
    """``mlflow gc`` prints which files of a listing were not deleted, and why."""
    hostile_server.keys = keys
    with pytest.raises(MlflowException) as caught:
        BucketFSArtifactRepository(hostile_server.uri).delete_artifacts("d")
    lines = str(caught.value).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any(f"root/d/{ascii(keys[0][7:])[1:-1]}" in line for line in lines)


def test_an_artifact_that_is_missing_is_named_escaped(repo):
    """What MLflow asks for may come from a listing."""
    with pytest.raises(MlflowException, match="There is no artifact") as caught:
        repo.download_artifacts(REVERSED)
    assert str(caught.value).isprintable()


def test_an_upload_shows_names_escaped(server, repo, local, caplog):
    """A model's files are named in warnings and in what was held back."""
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


def test_a_model_from_http_speaks_escaped(server, repo, caplog):
    """The reason in an MLmodel is text of whoever can write into the bucket."""
    server.put("root/m/MLmodel", b"incomplete_upload: \x1b[2J \xff\n")
    repo.download_artifacts("m")
    (message,) = messages(caplog)
    assert message.endswith(r"/MLmodel: \x1b[2J " + "\N{REPLACEMENT CHARACTER}")


def test_reading_from_the_mount_logs_names_escaped(mounted, server, local, caplog):
    """Paths on the mount are logged for information, and when MLflow hides the reason."""
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
    """Whatever a URI or a server names, a terminal only shows what check prints."""
    printed = CliRunner().invoke(main, ["check", server.uri(path=REVERSED)]).stdout
    assert r"folder 'a\u202eb'" in printed
    assert all(line.isprintable() for line in printed.splitlines())


def test_constraints_prints_names_escaped(local):
    """A pickle of a model has whatever name."""
    model = local.write({"requirements.txt": b"", "\x1b[2J.pkl": b"numpy._core"}, "model")
    constraints = local.write({"constraints.txt": b"numpy==1.26.4\n"}, "slc") / "constraints.txt"
    printed = CliRunner().invoke(main, ["constraints", str(model), str(constraints)]).stdout
    assert r"\x1b[2J.pkl" in printed
    assert all(line.isprintable() for line in printed.splitlines())


def test_copy_prints_names_escaped(server, local):
    """What was copied, and what keeps from it, names the target."""
    source, target = str(local.write({"f": b""})), server.uri(path=REVERSED)
    copied = CliRunner().invoke(main, ["copy", source, target])
    refused = CliRunner().invoke(main, ["copy", source, target])
    assert (copied.exit_code, refused.exit_code) == (0, 1)
    for printed in (copied.output, refused.output):
        assert r"/a\u202eb" in printed
        assert all(line.isprintable() for line in printed.splitlines())
