"""Test of random operations on a repository, compared with a dict as a model of the bucket.

``BUCKETFS_STATEFUL_EXAMPLES`` raises the number of examples, each of up to 30 operations.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository
from mlflow_bucketfs_testing.server import BucketFSServer, Fault

EXAMPLES = int(os.environ.get("BUCKETFS_STATEFUL_EXAMPLES", "60"))

# few names, so that they collide: as file and folder, as prefix, as escaped form of another
names = st.sampled_from(
    ["a", "aa", "a.b", "a b", "a%20b", "a+b", "a#b", "a?b", "MLmodel", ".a", "ä", "%61", "x.tar.gz"]
)
folders = st.lists(names, max_size=3).map("/".join)
contents = st.binary(max_size=12)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), contents, max_size=5)
nuisances = st.sampled_from(
    [
        Fault.status(503),
        Fault.status(423),
        Fault.reset_before_body(),
        Fault.reset_on_upload(3, method="PUT"),
        Fault.truncate(1, method="GET"),
        Fault.reset_in_body(1, method="GET"),
    ]
)


def join(folder, name):
    """Join two paths, either of which may be empty."""
    return f"{folder}/{name}".strip("/")


def parents(path):
    """Return all parent folders of a path."""
    return [str(parent) for parent in Path(path).parents if str(parent) != "."]


class RepositoryMachine(RuleBasedStateMachine):
    """A repository at a new folder, and its expected content."""

    paths = Bundle("paths")

    def __init__(self):
        super().__init__()
        self.model = {}
        self.cleanup = ExitStack()
        self.scratch = Path(self.cleanup.enter_context(tempfile.TemporaryDirectory()))
        self.server = self.cleanup.enter_context(BucketFSServer(shuffle_listing=True))

    @initialize()
    def make_repository(self):
        """Create an empty repository, and other keys that must not change."""
        self.root = uuid.uuid4().hex
        self.neighbours = {f"{self.root}x/a": b"1", f"{self.root[:-1]}/a": b"2", "MLmodel": b"3"}
        self.server.put_many(self.neighbours.items())
        self.repo = BucketFSArtifactRepository(self.server.uri(path=self.root))

    @rule(target=paths, folder=folders, name=names)
    def name_a_path(self, folder, name):
        """Create a path that later operations may use again."""
        return join(folder, name)

    @rule(path=paths, data=contents, way=st.sampled_from(["file", "stream"]))
    def log_artifact(self, path, data, way):
        """Log one file; only a file in the way of its folder makes this fail."""
        folder, _, name = path.rpartition("/")
        local = self.new_directory() / name
        local.write_bytes(data)

        def log():
            if way == "file":
                self.repo.log_artifact(local, folder)
            else:
                self.repo.log_artifact_from_stream(io.BytesIO(data), name, folder)

        self.write(log, {path: data})

    @rule(folder=st.one_of(folders, paths), tree=trees)
    def log_artifacts(self, folder, tree):
        """Log a directory."""
        tree = {n: d for n, d in tree.items() if not any(n in parents(other) for other in tree)}
        local = self.new_directory()
        for name, data in tree.items():
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            (local / name).write_bytes(data)
        changes = {join(folder, name): data for name, data in tree.items()}
        self.write(lambda: self.repo.log_artifacts(str(local), folder), changes)

    def write(self, action, changes):
        """Apply changes to both sides, or to neither if a file is in the way."""
        if any(parent in self.model for path in changes for parent in parents(path)):
            with pytest.raises(MlflowException, match="in the way"):
                action()
        else:
            action()
            self.model |= changes

    @rule(path=st.one_of(paths, folders), slash=st.sampled_from(["", "/"]))
    def delete(self, path, slash):
        """Delete a file, a folder, the root, or a missing path."""
        self.repo.delete_artifacts(path + slash)
        for key in self.below(path):
            del self.model[join(path, key)]
        self.model.pop(path, None)

    @rule(path=st.one_of(paths, folders), slash=st.sampled_from(["", "/"]))
    def list(self, path, slash):
        """List one level."""
        expected = {}
        for name in self.below(path):
            first, inner, _ = name.partition("/")
            expected[first] = expected.get(first, False) or bool(inner)
        listed = [(i.path, i.is_dir) for i in self.repo.list_artifacts(path + slash)]
        assert listed == [(join(path, n), is_folder) for n, is_folder in sorted(expected.items())]

    @rule(path=st.one_of(paths, folders))
    def download(self, path):
        """Download a file or folder; if a path is both, the folder is downloaded."""
        target = self.new_directory()
        below = self.below(path)
        if not below and path not in self.model:
            if path:
                with pytest.raises(MlflowException) as caught:
                    self.repo.download_artifacts(path, str(target))
                assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
            assert not any(target.iterdir())
            return
        expected = {join(path, name): data for name, data in below.items()}
        expected = expected or {path: self.model[path]}
        shadowed = {parent for name in expected for parent in parents(name)}
        assert self.repo.download_artifacts(path, str(target)) == str(target / path).rstrip("/")
        assert {
            p.relative_to(target).as_posix(): p.read_bytes()
            for p in target.rglob("*")
            if p.is_file()
        } == {name: data for name, data in expected.items() if name not in shadowed}

    @rule(path=paths)
    def download_one(self, path):
        """Download exactly one file, as MLflow does for traces."""
        target = self.new_directory() / "file"
        if path in self.model:
            self.repo._download_file(path, target)
            assert target.read_bytes() == self.model[path]
        else:
            with pytest.raises(MlflowException):
                self.repo._download_file(path, target)
            assert not target.exists()

    @precondition(lambda self: len(self.server.faults) < 5)  # a request has eight attempts
    @rule(nuisance=nuisances)
    def disturb(self, nuisance):
        """Inject a transient failure of one request."""
        self.server.inject(nuisance)

    @rule()
    def reopen(self):
        """Replace the repository by a new one."""
        self.repo = BucketFSArtifactRepository(self.server.uri(path=f"/{self.root}/"))

    @invariant()
    def bucket_holds_the_same(self):
        """The bucket has exactly the model's files and the neighbours."""
        expected = {join(self.root, key): data for key, data in self.model.items()}
        expected |= self.neighbours
        assert {key: self.server.read(key) for key in self.server.keys()} == expected

    def below(self, folder):
        """Return the model's files below a folder, by relative name."""
        prefix = f"{folder}/" if folder else ""
        return {
            key.removeprefix(prefix): data
            for key, data in self.model.items()
            if key.startswith(prefix)
        }

    def new_directory(self):
        """Make an empty directory."""
        return Path(tempfile.mkdtemp(dir=self.scratch))

    def teardown(self):
        """Stop the server."""
        shutil.rmtree(self.scratch)
        self.scratch.mkdir()
        self.cleanup.close()


def test_repository_behaves_like_a_dict():
    """Any sequence of operations gives the same results as a dict."""
    run_state_machine_as_test(
        RepositoryMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
