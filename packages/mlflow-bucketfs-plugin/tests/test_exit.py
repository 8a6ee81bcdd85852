"""Tests of transfers during interpreter shutdown, when no thread can be started."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import atexit, gc, sys
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

def transfer(name, make=BucketFSArtifactRepository, uri=sys.argv[1], folder=sys.argv[2]):
    repository = make(f"{uri}/{name}")
    repository.log_artifacts(folder)
    repository.delete_artifacts("folder/0")


class InDel:
    def __init__(self, name):
        self.name, self.transfer = name, transfer  # global names may be gone by then

    def __del__(self):
        self.transfer(self.name)


# an earlier collection could call __del__ in any thread, even in the middle of a request
gc.disable()
atexit.register(gc.enable)  # runs last, before the last collection
# before urllib3 registers its own with the first request, so that it runs after them
atexit.register(transfer, "handler")
garbage = InDel("garbage")
garbage.itself = garbage
del garbage
last = InDel("last")
"""


def test_folders_are_transferred_while_the_interpreter_ends(server, tmp_path):
    """Folders are transferred in exit handlers, the last garbage collection and module deletion."""
    (tmp_path / "folder").mkdir()
    for number in range(3):
        (tmp_path / "folder" / str(number)).write_bytes(b"1")
    result = subprocess.run(
        [sys.executable, "-c", CODE, server.uri(), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0
    assert server.keys() == [
        f"{name}/folder/{number}" for name in ("garbage", "handler", "last") for number in (1, 2)
    ], result.stderr
