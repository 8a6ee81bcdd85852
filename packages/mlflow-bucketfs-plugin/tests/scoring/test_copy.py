"""Copying models and folders to BucketFS."""

from __future__ import annotations

import sys

import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow_bucketfs_plugin.scoring import ScriptError, copy_model, scoring_script
from mlflow_bucketfs_testing.server import Fault

FILES = {"MLmodel": b"flavors: {}\n", "model.pkl": b"pickle", "code/x.py": b""}


@pytest.fixture
def directory(local):
    """Return a local directory with a model."""
    return local.write(FILES, "model")


def test_directory(directory, server):
    """All files are copied, ``MLmodel`` last."""
    copied = copy_model(str(directory), server.uri(path="a/b"))
    assert {key: server.read(key) for key in server.keys()} == {
        f"a/b/{name}": data for name, data in FILES.items()
    }
    assert [r.key for r in server.requests if r.method == "PUT"][-1] == "a/b/MLmodel"
    assert (copied.files, copied.size_bytes) == (3, 18)
    assert copied.uri == server.uri(path="a/b")
    assert copied.mounted == f"/buckets/bfsdefault/{server.buckets[0].name}/a/b"


def test_between_buckets(store_model, make_server):
    """A model is copied from one BucketFS to another, and a script is made from the copy."""
    other = make_server()
    copy_model(store_model(), other.uri(path="m"))
    assert sorted(other.keys()) == ["m/MLmodel", "m/model.pkl"]
    assert "SCORE DOUBLE" in scoring_script(other.uri(path="m"), "s").text


def test_registered_model(store_model, server, new_experiment):
    """The file that MLflow adds to a downloaded registered model is not copied."""
    new_experiment(server.uri())
    client = MlflowClient()
    client.create_registered_model("copied")
    client.create_model_version("copied", store_model())
    copy_model("models:/copied/1", server.uri(path="other"))
    assert [k for k in server.keys() if k.startswith("other/")] == [
        "other/MLmodel",
        "other/model.pkl",
    ]


def test_folder_that_is_not_empty(directory, server):
    """A non-empty target is refused; with ``replace``, files missing in the source are deleted."""
    server.put_many((f"m/{name}", b"old") for name in ("MLmodel", "code/y.py", "z.tmp"))
    server.put("mm/MLmodel", b"of another")
    with pytest.raises(ScriptError, match=r"3 file\(s\).*--replace"):
        copy_model(str(directory), server.uri(path="m"))
    assert server.read("m/MLmodel") == b"old"
    assert copy_model(str(directory), server.uri(path="m"), replace=True).deleted == 2
    assert {key: server.read(key) for key in server.keys()} == {
        **{f"m/{name}": data for name, data in FILES.items()},
        "mm/MLmodel": b"of another",
    }


@pytest.mark.parametrize("replace", [False, True])
def test_target_with_other_models(directory, server, command, replace):
    """A target with other models below it is refused, and no message proposes to replace them."""
    other = "store/1/models/m-1/artifacts"
    server.put_many((f"{other}/{name}", b"other") for name in FILES)
    server.put_many((f"store/{name}", b"old") for name in ("MLmodel", "stale"))
    before = {key: server.read(key) for key in server.keys()}
    options = ["--replace"] if replace else []
    result = command("copy", directory, server.uri(path="store"), *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 other model(s)" in result.stderr
    assert "such as 1/models/m-1/artifacts, " in result.stderr
    assert "Choose a folder of its own" in result.stderr
    assert "--replace" not in result.stderr
    assert {key: server.read(key) for key in server.keys()} == before


def test_models_of_the_source_are_replaced(local, server):
    """Models in folders below the target are replaced if the source has them, too."""
    directory = local.write({**FILES, "inner/MLmodel": b"new"}, "outer")
    server.put_many((f"m/{name}", b"old") for name in ("MLmodel", "inner/MLmodel", "inner/stale"))
    assert copy_model(str(directory), server.uri(path="m"), replace=True).deleted == 1
    assert server.read("m/inner/MLmodel") == b"new"
    assert "m/inner/stale" not in server.keys()


def test_model_is_marked_incomplete_while_it_is_replaced(directory, server):
    """While a model is replaced, its ``MLmodel`` is a placeholder that cannot be loaded."""
    server.put_many((f"m/{name}", b"old") for name in ("MLmodel", "stale"))
    server.inject(Fault.status(403, method="DELETE", key="m/stale", times=None))
    with pytest.raises(MlflowException, match="stale"):
        copy_model(str(directory), server.uri(path="m"), replace=True)
    assert b"has not been completed" in server.read("m/MLmodel")
    assert "m/model.pkl" not in server.keys()


def test_source_that_fails_changes_nothing(server, tmp_path):
    """The target is not changed if the source cannot be downloaded."""
    server.put("m/MLmodel", b"old")
    # before MLflow 3.12 an OSError
    with pytest.raises((MlflowException, OSError), match="none'"):
        copy_model((tmp_path / "none").as_uri(), server.uri(path="m"), replace=True)
    assert server.read("m/MLmodel") == b"old"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/home/x", "is not a URI in BucketFS"),
        ("s3://bucket/x", "is not a BucketFS URI"),
        ("{}", "names a bucket only"),
    ],
)
def test_targets_that_are_refused(directory, server, target, reason):
    """A target that is not a folder in a bucket is refused."""
    with pytest.raises(ValueError, match=reason):
        copy_model(str(directory), target.format(server.uri()))


def test_sources_that_are_refused(server, local):
    """A source that is a file or an empty folder is refused."""
    directory = local.write({"file": b""})
    with pytest.raises(ScriptError, match="is a file"):
        copy_model(str(directory / "file"), server.uri(path="m"))
    with pytest.raises(ScriptError, match="nothing to copy"):
        copy_model(str(local.directory("empty")), server.uri(path="m"))


@pytest.mark.parametrize("source", ["", "nodir", "no/dir", "/no:dir"])
def test_source_that_does_not_exist(server, source):
    """A source that is neither a URI nor an existing path is an error with its name."""
    with pytest.raises(MlflowException) as error:
        copy_model(source, server.uri(path="m"))
    assert error.value.message == f"{source!r} is neither a URI nor an existing file or directory."


@pytest.mark.parametrize(
    ("uri", "module", "package"),
    [
        ("s3://models/churn", "botocore", "boto3"),
        ("gs://models/churn", "google.cloud", "google-cloud-storage"),
    ],
)
def test_store_whose_package_is_missing(server, environment, uri, module, package):
    """If MLflow needs a package for a store, the error names the module and the package."""
    environment.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(MlflowException) as error:
        copy_model(uri, server.uri(path="m"))
    assert error.value.message.startswith(f"{uri}: ")
    assert module in error.value.message
    assert f"the package that MLflow needs (pip install {package})." in error.value.message


def test_tracking_store_whose_package_is_missing(command, environment):
    """``sql`` names the package that the tracking store needs."""
    environment.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://127.0.0.1:1/mlflow")
    environment.setitem(sys.modules, "psycopg2", None)
    result = command("sql", "models:/churn/1", "--name", "CHURN")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert "the package that MLflow needs (pip install psycopg2-binary)." in result.stderr


def test_store_whose_library_fails(server, environment):
    """An exception of a store's library is reported with the source's URI."""

    class UnknownRepository(ArtifactRepository):
        def __init__(self, *_arguments, **_options):
            raise RuntimeError("no credentials")

    environment.setitem(_artifact_repository_registry._registry, "unknown", UnknownRepository)
    with pytest.raises(MlflowException, match=r"^unknown://x/y: RuntimeError: no credentials$"):
        copy_model("unknown://x/y", server.uri(path="m"))


@pytest.mark.parametrize("uri", ["models:/nothere/1", "runs:/abc/model"])
def test_unknown_source(uri, server, environment, tracking_uri):
    """A source that the tracking server does not have is an error with its URI and the remedy."""
    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    with pytest.raises(MlflowException, match=f"looked for in {tracking_uri}"):
        copy_model(uri, server.uri(path="m"))


def test_registered_model_without_version(server):
    """A registered model needs a version or an alias, as in ``sql``."""
    with pytest.raises(ScriptError, match=r"Add one: models:/churn/1, models:/churn@champion"):
        copy_model("models:/churn", server.uri(path="m"))


def test_without_password(directory, server, environment):
    """A missing password is an error before the source is read."""
    environment.delenv("EXA_BUCKETFS_PASSWORD")
    with pytest.raises(PermissionError, match="EXA_BUCKETFS_PASSWORD"):
        copy_model(str(directory / "none"), server.uri(path="m"))


def test_command(command, directory, server):
    """The command prints the number, size and mounted path of the copied files, or an error."""
    result = command("copy", directory, server.uri(path="m"))
    assert result.exit_code == 0
    assert f"Copied 3 files, 18 bytes, to {server.uri(path='m')}" in result.stdout
    assert f"/buckets/bfsdefault/{server.buckets[0].name}/m" in result.stdout
    result = command("copy", directory, server.uri(path="m"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--replace" in result.stderr
    server.put("m/stale", b"")
    result = command("copy", directory, server.uri(path="m"), "--replace")
    assert result.exit_code == 0
    assert f"{server.uri(path='m')} and deleted 1 other files there" in result.stdout


def test_private_source(make_server, server, environment):
    """A private source that rejects the password is an error."""
    source = make_server(public=False)
    source.put("m/MLmodel", b"")
    environment.setenv("EXA_BUCKETFS_PASSWORD", "wrong")
    with pytest.raises(MlflowException, match=source.buckets[0].name) as error:
        copy_model(source.uri(path="m"), server.uri(path="m"))
    assert error.value.error_code == "PERMISSION_DENIED"
    assert server.requests.count(method="PUT") == 0
