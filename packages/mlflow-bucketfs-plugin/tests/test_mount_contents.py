"""Tests of a mount's entries that are not objects: unpacked archives, links, named pipes."""

import io
import os
import zipfile
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.backend import PyFuncBackend
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import BucketFSServer, Fault


def zipped(**files):
    """Return a zip archive with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


class Policy(mlflow.pyfunc.PythonModel):
    """A model that reads its archive, as one of stable-baselines3 does."""

    def load_context(self, context):
        """Open the archive."""
        with zipfile.ZipFile(context.artifacts["a"]) as archive:
            self.text = archive.read("rule").decode()

    def predict(self, context, model_input: list[str], params=None) -> list[str]:  # noqa: ARG002
        """Return the text in the archive."""
        return [self.text] * len(model_input)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A model with an archive, saved by MLflow and stored by another process."""
    directory = tmp_path_factory.mktemp("saved")
    (directory / "policy.zip").write_bytes(zipped(rule="follow"))
    mlflow.pyfunc.save_model(
        directory / "model",
        python_model=Policy(),
        artifacts={"a": str(directory / "policy.zip")},
        pip_requirements=[],
    )
    with BucketFSServer() as server:
        files = [p for p in (directory / "model").rglob("*") if p.is_file()]
        server.put_many((f"m/{p.relative_to(directory / 'model')}", p.read_bytes()) for p in files)
        server.sync_mount()
        yield server


@pytest.fixture
def policy_uri(policy, temporary_directory, monkeypatch):
    """The URI of the model, in a process that uses the mount."""
    assert temporary_directory.is_dir()
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(policy.mount_root))
    policy.requests.clear()
    return policy.uri(path="m")


def test_a_model_with_an_archive_is_refused_by_name(policy, policy_uri):
    """Without the fallback, the error names the archive, and reports that it was unpacked."""
    with pytest.raises(MlflowException, match="BucketFS unpacks archives") as caught:
        mlflow.pyfunc.load_model(policy_uri)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    mounted = policy.mount_root / policy.service / "default" / "m"
    assert f"{mounted}/artifacts/policy.zip does not exist" in str(caught.value)
    assert policy.requests.connections == 0


def test_a_model_with_an_archive_comes_over_http_where_that_is_allowed(
    policy, policy_uri, monkeypatch
):
    """With the fallback, the model loads, with one listing and one GET per file."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    model = mlflow.pyfunc.load_model(policy_uri)
    assert model.predict(["x"]) == ["follow"]
    assert policy.requests.listings == 1
    assert len(policy.requests) == 1 + len(policy.keys())


@pytest.fixture
def archives(server, mounted):
    """The same mount with a folder that has an archive, and a model that has one in a folder."""
    server.put_many(
        [
            ("root/both/x.zip", zipped(inside="1")),
            ("root/both/y", b"2"),
            ("root/m/MLmodel", b"flavors: {a: {data: d}}\nmodel_size_bytes: 9\n"),
            ("root/m/d/x.zip", zipped(inside="1")),
            ("root/whole/MLmodel", b"flavors: {a: {data: d}}\nmodel_size_bytes: 3\n"),
            ("root/whole/d/x", b"123"),
        ]
    )
    server.sync_mount()
    server.requests.clear()
    return mounted.artifact_uri


# path, downloaded files, number of listings, number of GETs
WITH_FALLBACK = {
    "folder with an archive": ("both", {"x.zip", "y"}, 1, 2),
    "folder without one": ("plots", {"a.png"}, 1, 0),
    "model with one in a folder": ("m", {"MLmodel", "d/x.zip"}, 1, 2),
    "model with all its bytes": ("whole", {"MLmodel", "d/x"}, 0, 0),
    "unpacked archive by its own name": ("both/x", {"inside"}, 1, 0),
}


@pytest.mark.parametrize(
    ("path", "names", "listings", "gets"), WITH_FALLBACK.values(), ids=WITH_FALLBACK
)
def test_with_the_fallback_one_listing_decides(  # noqa: PLR0917
    server, archives, local, monkeypatch, path, names, listings, gets
):
    """A folder that differs from BucketFS is read over HTTP; files need no listing."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    repo = BucketFSArtifactRepository(archives)
    for target in (None, str(local.directory())):
        server.requests.clear()
        assert local.read(Path(repo.download_artifacts(path, target))).keys() == names
        requests = server.requests
        assert (requests.listings, len(requests) - requests.listings) == (listings, gets)
    assert {i.path for i in repo.list_artifacts(path)} == {
        f"{path}/{name.partition('/')[0]}" for name in names
    }
    server.requests.clear()
    assert Path(repo.download_artifacts("both/y")).read_bytes() == b"2"
    assert len(server.requests) == 0


def test_with_the_fallback_a_failed_listing_is_an_error(server, archives, monkeypatch):
    """If the required listing fails, reading is an error."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    repo = BucketFSArtifactRepository(archives)
    server.inject(Fault.status(503, key="", times=None))
    for read in (repo.download_artifacts, repo.list_artifacts):
        with pytest.raises(MlflowException, match="Cannot list"):
            read("plots")
    assert Path(repo.download_artifacts("whole"), "d", "x").read_bytes() == b"123"


def test_without_the_fallback_nothing_is_compared(server, archives, local):
    """Without the fallback, a folder that is not a model is read as it is mounted."""
    repo = BucketFSArtifactRepository(archives)
    assert local.read(Path(repo.download_artifacts("both"))).keys() == {"x/inside", "y"}
    assert len(server.requests) == 0


def test_a_tracking_server_reads_only_what_is_listed(server, archives, local, monkeypatch):
    """A tracking server reads the same files from the mount as over HTTP, as real copies."""
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", archives)
    repo = BucketFSArtifactRepository(archives)
    assert [(i.path, i.is_dir, i.file_size) for i in repo.list_artifacts("both")] == [
        ("both/x.zip", False, None),
        ("both/y", False, 1),
    ]
    assert repo.list_artifacts("both/x") == []
    server.requests.clear()
    for path in ("both/y", "both/x/inside", "plots", "missing"):
        assert repo.get_local_path(path) is None
    # MLflow calls it in its event loop
    assert len(server.requests) == 0
    down = Path(repo.download_artifacts("both", str(local.directory())))
    assert local.read(down) == {"x.zip": server.read("root/both/x.zip"), "y": b"2"}
    assert [(r.method, r.key) for r in server.requests] == [("GET", ""), ("GET", "root/both/x.zip")]
    for path in ("both/x", "both/x/inside"):
        with pytest.raises(MlflowException, match="no artifact") as caught:
            repo.download_artifacts(path, str(down))
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    server.requests.clear()
    assert local.read(Path(repo.download_artifacts("plots"))) == {"a.png": b"12345"}
    assert not Path(repo.download_artifacts("plots"), "a.png").is_symlink()
    assert len(server.requests) == server.requests.listings == 2


def test_a_tracking_server_follows_no_link_out_of_the_bucket(
    server, archives, bucket_on_mount, local, monkeypatch
):
    """A tracking server reads an object over HTTP that is a link or a pipe on the mount."""
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", archives)
    folder = bucket_on_mount / "root" / "both"
    server.put_many([("root/both/link", b"l"), ("root/both/pipe", b"p")])
    for name in ("link", "pipe"):
        (folder / name).unlink()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "unlisted").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    repo = BucketFSArtifactRepository(archives)
    found = local.read(Path(repo.download_artifacts("both", str(local.directory()))))
    assert (found.keys(), found["link"], found["pipe"]) == (
        {"link", "pipe", "x.zip", "y"},
        b"l",
        b"p",
    )
    repo._download_file("both/link", local.root / "one")
    assert (local.root / "one").read_bytes() == b"l"
    for read in (repo.download_artifacts, lambda path: repo._download_file(path, local.root / "x")):
        with pytest.raises(MlflowException) as caught:
            read("both/unlisted")
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


# entries below root/plots that are not objects
def link_to_a_file(folder):
    """Add a link to a file of the machine."""
    (folder / "entry").symlink_to("/etc/passwd")


def link_to_a_folder(folder):
    """Add a link to a directory of the machine."""
    (folder / "entry").symlink_to("/etc")


def link_to_nowhere(folder):
    """Add a dangling link that leads out of the bucket."""
    (folder / "entry").symlink_to("/nowhere")


def link_to_its_parent(folder):
    """Add a link to its own parent."""
    (folder / "entry").symlink_to("..")


def pipe(folder):
    """Add a named pipe without a writer."""
    os.mkfifo(folder / "entry")


ENTRIES = (link_to_a_file, link_to_a_folder, link_to_nowhere, pipe)


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize("make", ENTRIES)
def test_unsafe_entries_are_refused(mounted, bucket_on_mount, local, make):
    """Every way of reading refuses an unsafe entry with an error that names it."""
    folder = bucket_on_mount / "root" / "plots"
    make(folder)
    target = str(local.directory())
    for read in (
        lambda: mounted.download_artifacts("plots/entry"),
        lambda: mounted.download_artifacts("plots/entry", target),
        lambda: mounted.download_artifacts("plots", target),
        lambda: mounted.get_local_path("plots/entry"),
        lambda: mounted._download_file("plots/entry", local.root / "x"),
    ):
        with pytest.raises(MlflowException, match=f"{folder}/entry (leads to /|is not a regular)"):
            read()
    assert not (local.root / "x").exists()
    assert not (local.root / "down" / "plots" / "entry").exists()
    assert [(i.path, i.is_dir, i.file_size) for i in mounted.list_artifacts("plots")] == [
        ("plots/a.png", False, 5),
        ("plots/entry", False, None),
    ]


@pytest.mark.usefixtures("temporary_directory")
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (link_to_a_file, "MLmodel"),
        (pipe, "MLmodel"),
        (link_to_a_file, "d/x"),
        (link_to_its_parent, "d/x"),
        (pipe, "d/x"),
    ],
)
def test_models_with_unsafe_entries_are_refused(
    server, archives, bucket_on_mount, monkeypatch, *, make, name
):
    """A model with an unsafe entry is refused; with the fallback, it is read over HTTP."""
    path = bucket_on_mount / "root" / "whole" / name
    path.unlink()
    make(path.parent)
    (path.parent / "entry").rename(path)
    with pytest.raises(MlflowException, match=r" leads (back )?to /|is not a regular") as caught:
        mlflow.pyfunc.load_model(f"{archives}/whole")
    assert f"{path} " in str(caught.value)
    assert server.requests.connections == 0
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_FALLBACK", "http")
    repo = BucketFSArtifactRepository(archives)
    assert Path(repo.download_artifacts("whole"), "d", "x").read_bytes() == b"123"


@pytest.mark.usefixtures("no_requests")
def test_links_within_the_bucket_are_followed(mounted, bucket_on_mount, temporary_directory):
    """Links within the bucket are resolved, so that a model's links lead to the files."""
    model = bucket_on_mount / "root" / "linked"
    (model / "real").mkdir(parents=True)
    (model / "real" / "weights").write_bytes(b"1")
    (model / "MLmodel").write_bytes(b"flavors: {a: {data: d, model_path: w}}\n")
    (model / "d").symlink_to("real")
    (model / "w").symlink_to(bucket_on_mount / "root" / "linked" / "d" / "weights")
    directory = Path(mounted.download_artifacts("linked"))
    assert temporary_directory in directory.parents
    for name in ("d/weights", "w", "real/weights"):
        assert (directory / name).readlink() == model / "real" / "weights"
    assert [(i.path, i.is_dir) for i in mounted.list_artifacts("linked")] == [
        ("linked/MLmodel", False),
        ("linked/d", True),
        ("linked/real", True),
        ("linked/w", False),
    ]
    assert mounted.download_artifacts("linked/d/weights") == str(model / "d" / "weights")


@pytest.mark.usefixtures("no_requests")
def test_copies_have_no_links(server, mounted, temporary_directory, local):
    """A model that contains a mounted one, and a Docker context, are complete without the mount."""
    server.put_many(
        [
            ("root/enc/MLmodel", b"flavors: {python_function: {loader_module: x}}\n"),
            ("root/enc/weights", b"1"),
        ]
    )
    assert temporary_directory.is_dir()
    uri = f"{mounted.artifact_uri}/enc"
    mlflow.pyfunc.save_model(
        local.root / "outer",
        python_model=Policy(),
        artifacts={"enc": uri, "file": f"{uri}/weights"},
        pip_requirements=[],
    )
    PyFuncBackend({}, env_manager="virtualenv").generate_dockerfile(uri, str(local.root / "image"))
    for directory in ("outer", "image"):
        files = [p for p in (local.root / directory).rglob("*") if p.is_file()]
        assert [p.read_bytes() for p in files if p.name == "weights"]
        assert not [p for p in files if p.is_symlink()]
