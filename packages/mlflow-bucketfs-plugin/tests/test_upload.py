"""Tests of ``log_artifact`` and ``log_artifacts``."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import Fault


@pytest.mark.parametrize(
    ("artifact_path", "key"),
    [
        (None, "root/f.txt"),
        ("", "root/f.txt"),
        ("a/b", "root/a/b/f.txt"),
        ("%2e", "root/%2e/f.txt"),
    ],
)
def test_one_file(server, repo, local, artifact_path, key):
    """A file is stored in the given folder, taken literally, under its own name."""
    repo.log_artifact(str(local.write({"f.txt": b"1"}) / "f.txt"), artifact_path)
    assert server.keys() == [key]
    assert server.read(key) == b"1"


def test_same_name_replaces(server, repo, local):
    """Logging again replaces the artifact, also by an empty one."""
    for data in (b"old", b"new", b""):
        repo.log_artifact(local.write({"f": data}) / "f")
        assert server.read("root/f") == data


@pytest.mark.parametrize("spell", [str, Path, "{}/".format], ids=["str", "Path", "trailing slash"])
def test_directory_content(server, repo, local, spell, monkeypatch):
    """All files below a directory are uploaded, also hidden and empty ones, without its name."""
    files = {"a": b"1", ".hidden": b"2", ".d/x": b"3", "d/e/y": b"4", "d/empty": b""}
    directory = local.write(files)
    (directory / "empty directory").mkdir()
    monkeypatch.chdir(directory.parent)
    for given in (directory, directory.relative_to(directory.parent)):
        server.clear()
        repo.log_artifacts(spell(given), "to")
        assert {key: server.read(key) for key in server.keys()} == {
            f"root/to/{name}": data for name, data in local.read(directory).items()
        }
        assert len(server.keys()) == len(files)


def test_empty_directory(server, repo, tmp_path):
    """An empty directory causes no request."""
    repo.log_artifacts(tmp_path)
    assert server.requests.connections == 0


def test_odd_names_survive(server, repo, local, odd_names):
    """Any legal name of a file or folder is uploaded, listed and downloaded unchanged."""
    files = {name: {name: name.encode(), f"{name}.d/{name}": b"2"} for name in odd_names}
    for number, name in enumerate(odd_names):
        directory = local.write(files[name], f"up{number}")
        repo.log_artifacts(directory, name)
        repo.log_artifact(directory / name, "single")
    assert server.keys() == sorted(
        [f"root/{folder}/{file}" for folder in odd_names for file in files[folder]]
        + [f"root/single/{name}" for name in odd_names]
    )
    assert [i.path for i in repo.list_artifacts()] == sorted([*odd_names, "single"])
    target = local.directory()
    for name in odd_names:
        listed = {i.path for i in repo.list_artifacts(name)}
        assert listed == {f"{name}/{name}", f"{name}/{name}.d"}
        repo.download_artifacts(name, str(target))
        assert local.read(target / name) == files[name]
        assert Path(repo.download_artifacts(f"single/{name}")).read_bytes() == name.encode()
        repo.delete_artifacts(name)
    assert server.keys() == sorted(f"root/single/{name}" for name in odd_names)


def test_links_are_followed(server, repo, local, tmp_path):
    """A link to a file or directory is followed, under each of its names."""
    directory = local.write({"real/x": b"1"})
    (directory / "link").symlink_to("real")
    (directory / "file").symlink_to(directory / "real" / "x")
    (tmp_path / "elsewhere").symlink_to(directory)
    repo.log_artifacts(tmp_path / "elsewhere")
    assert server.keys() == ["root/file", "root/link/x", "root/real/x"]


def test_link_cycle_is_refused(server, repo, local):
    """A link to its own parent is an error that names it, and nothing is sent."""
    directory = local.write({"d/x": b"1"})
    (directory / "d" / "loop").symlink_to("..")
    with pytest.raises(OSError, match="d/loop leads back to"):
        repo.log_artifacts(directory)
    assert server.requests.connections == 0


@pytest.mark.parametrize("name", ["missing", "file"])
def test_no_directory(server, repo, local, name):
    """A path that is not a directory is an error that names it."""
    directory = local.write({"file": b"1"})
    with pytest.raises(MlflowException, match=f"no directory '.*/{name}'") as caught:
        repo.log_artifacts(directory / name)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == 0


@pytest.mark.parametrize("name", ["missing", "directory"])
def test_no_file(server, repo, tmp_path, name):
    """A path that is not a file is an error that names it, and nothing is stored."""
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match=f"{tmp_path}/{name}"):
        repo.log_artifact(tmp_path / name)
    assert server.keys() == []


def test_named_pipe_does_not_hang(server, repo, local):
    """A named pipe is an error, and the files beside it are uploaded."""
    directory = local.write({"a": b"1"})
    os.mkfifo(directory / "pipe")
    with pytest.raises(MlflowException, match=r"- pipe: .*not a regular file"):
        repo.log_artifacts(directory)
    assert server.keys() == ["root/a"]


@pytest.mark.parametrize("path", ["..", "a/../b", "/a", "a//b", "./a", "a/"])
def test_bad_artifact_path(server, repo, local, path):
    """A path that is not in MLflow's normal form is refused for every kind of upload."""
    directory = local.write({"f": b"1"})
    for upload in (
        lambda: repo.log_artifact(directory / "f", path),
        lambda: repo.log_artifacts(directory, path),
    ):
        with pytest.raises(MlflowException, match="Invalid artifact path"):
            upload()
    assert server.requests.connections == 0


@pytest.mark.parametrize("name", [b"new\nline", b"tab\t", b"not utf-8 \xff"], ids=repr)
def test_invalid_name_stops_before_anything_is_sent(server, repo, local, name):
    """A file with an invalid name is an error that names it, before anything is sent."""
    directory = local.write({"a": b"1"})
    Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(b"2")
    with pytest.raises(MlflowException, match="Rename the file") as caught:
        repo.log_artifacts(directory)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert server.requests.connections == 0


def test_many_small_files_cost_one_request_each(server, repo, local):
    """300 files need at most one listing, and one PUT each, on few connections."""
    files = {f"d{number % 7}/{number}": b"x" * number for number in range(300)}
    repo.log_artifacts(local.write(files))
    assert len(server.keys()) == 300
    assert server.requests.count(method="PUT") == 300
    assert server.requests.listings <= 1
    assert len(server.requests) == 300 + server.requests.listings
    assert server.requests.connections <= 20


def test_known_folders_are_not_listed_again(server, repo, local):
    """Logging into a known folder sends only the PUT."""
    for number in range(5):
        repo.log_artifact(local.write({f"{number}": b"1"}) / f"{number}", "metrics/deep")
    assert (server.requests.listings, len(server.requests)) == (1, 6)


def test_one_bad_file_does_not_stop_the_others(server, repo, local):
    """All other files but MLmodel are uploaded, and the error names only the one that failed."""
    files = {f"{number}": b"x" for number in range(40)}
    server.inject(Fault.status(403, method="PUT", key="*/17", times=None))
    with pytest.raises(MlflowException, match=r"- 17: .*\b403\b") as caught:
        repo.log_artifacts(local.write({**files, "MLmodel": b"m"}), "model")
    assert str(caught.value).startswith("1 failure(s) while uploading")
    assert str(caught.value).count("\n- ") == 1
    assert server.keys() == sorted(f"root/model/{name}" for name in files if name != "17")


def test_dangling_link_is_named(server, repo, local):
    """A dangling link is a failure of that file alone."""
    directory = local.write({"a": b"1"})
    (directory / "broken").symlink_to("nowhere")
    with pytest.raises(MlflowException, match=r"- broken: .*No such file"):
        repo.log_artifacts(directory)
    assert server.keys() == ["root/a"]


def test_mlmodel_comes_last(server, repo, local):
    """MLmodel is uploaded after all other files of its model, inner models first."""
    files = {
        "MLmodel": b"",
        "a/MLmodel": b"",
        "a/b/MLmodel": b"",
        "a/b/z": b"",
        "a/z": b"",
        "z": b"",
        "MLmodel.bak": b"",
    }
    repo.log_artifacts(local.write(files))
    uploaded = [r.key.removeprefix("root/") for r in server.requests if r.method == "PUT"]
    assert uploaded[-3:] == ["a/b/MLmodel", "a/MLmodel", "MLmodel"]
    assert sorted(uploaded) == sorted(files)


@pytest.mark.parametrize(
    ("bad", "models"),
    [("z", ["a/MLmodel"]), ("a/z", []), ("a/MLmodel", []), ("MLmodel", ["a/MLmodel"])],
)
def test_incomplete_model_gets_no_mlmodel(server, repo, local, bad, models):
    """A failure holds back the MLmodel of its own model and of outer models, and no other."""
    server.inject(Fault.status(403, method="PUT", key=f"root/{bad}", times=None))
    files = dict.fromkeys(("MLmodel", "z", "a/MLmodel", "a/z"), b"1")
    with pytest.raises(MlflowException, match=f"- {bad}: ") as caught:
        repo.log_artifacts(local.write(files))
    held_back = {"MLmodel", "a/MLmodel"} - {bad, *models}
    reported = str(caught.value).partition("other files failed: ")[2]
    assert set(filter(None, reported.split(", "))) == held_back
    assert [key for key in server.keys() if key.endswith("MLmodel")] == [
        f"root/{model}" for model in models
    ]


def test_file_in_the_way(server, repo, local):
    """A file in the way is an error that names it, and nothing is uploaded."""
    server.put("root/d", b"file")
    with pytest.raises(MlflowException, match="root/d': a file of this name is in the way") as one:
        repo.log_artifact(local.write({"f": b"1"}) / "f", "d/e")
    with pytest.raises(MlflowException, match="root/d': a file of this name is in the way") as all_:
        repo.log_artifacts(local.write({"a": b"1", "d/f": b"2"}, "two"))
    assert {one.value.error_code, all_.value.error_code} == {"RESOURCE_CONFLICT"}
    assert server.keys() == ["root/d"]
    assert server.requests.count(method="PUT") == 0


def test_archive_in_a_model_is_warned_about(repo, local, caplog):
    """An archive in a model is logged, because BucketFS unpacks it for UDFs."""
    with caplog.at_level(logging.WARNING, "mlflow_bucketfs_plugin"):
        repo.log_artifacts(local.write({"data.zip": b"", "x.gz": b""}, "no model"))
        assert not caplog.records
        repo.log_artifacts(local.write({"MLmodel": b"", "d/data.zip": b"", "x.gz": b""}, "model"))
    assert ["d/data.zip" in r.getMessage() for r in caplog.records] == [True]
    assert "x.gz" not in caplog.text


def test_empty_folder_in_a_model_is_warned_about(repo, local, caplog):
    """An empty folder in a model is logged once; elsewhere it is not."""
    plain = local.write({"f": b""}, "no model")
    (plain / "empty").mkdir()
    above = local.write({"m/MLmodel": b"", "m/inner/MLmodel": b"", "m/full/f": b""}, "above")
    for folder in ("outside", "m/data", "m/inner/a/b"):
        (above / folder).mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "mlflow_bucketfs_plugin"):
        repo.log_artifacts(plain)
        assert not caplog.records
        repo.log_artifacts(above)
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.endswith(": m/data, m/inner/a/b")


def test_transient_failures_are_retried(server, repo, local):
    """Lost connections and busy responses are retried."""
    server.inject(
        Fault.status(503, method="PUT"),
        Fault.status(423, method="PUT"),
        Fault.status(429, method="PUT"),
        Fault.reset_on_upload(2, method="PUT"),
        Fault.reset_before_body(method="PUT"),
    )
    files = {f"{number}": b"content" for number in range(8)}
    repo.log_artifacts(local.write(files))
    assert {key: server.read(key) for key in server.keys()} == {
        f"root/{name}": data for name, data in files.items()
    }
    assert len(server.faults) == 0


@pytest.mark.parametrize(
    "upload",
    [
        pytest.param(lambda repo, d: repo.log_artifact(d / "f"), id="file"),
        pytest.param(lambda repo, d: repo.log_artifacts(d), id="directory"),
        pytest.param(lambda repo, _: repo.delete_artifacts("f"), id="delete"),
    ],
)
def test_write_without_password(server, local, monkeypatch, upload):
    """A write without a password is refused by naming the variable, before anything is sent."""
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")
    repo = BucketFSArtifactRepository(server.uri(path="root"))
    with pytest.raises(MlflowException, match="set EXA_BUCKETFS_PASSWORD") as caught:
        upload(repo, local.write({"f": b"1"}))
    assert caught.value.error_code == "UNAUTHENTICATED"
    assert server.requests.connections == 0
