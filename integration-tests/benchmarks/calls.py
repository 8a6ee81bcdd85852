"""Count the modules, calls and stack frames of our code in an operation.

A script, run by hand from ``integration-tests``: ``uv run python -m benchmarks.calls``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.pyfunc
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_testing import BucketFSServer

from benchmarks.make_models import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_PACKAGES = ("mlflow_bucketfs_core", "mlflow_bucketfs_plugin")


@dataclass
class Counts:
    """Calls of our code.

    Attributes:
        modules: names of the called modules.
        calls: number of calls of our functions.
        frames: maximum of our frames on the stack when urllib3 sends a request, by its method.
        deepest: maximum of our frames on the stack.
    """

    modules: set[str] = field(default_factory=set)
    calls: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    deepest: int = 0

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """Record one event, as ``sys.setprofile`` reports it."""
        del argument
        if event != "call":
            return
        module = frame.f_globals.get("__name__", "")
        if module == "urllib3.connectionpool" and frame.f_code.co_name == "urlopen":
            method = frame.f_locals["method"]
            self.frames[method] = max(self.frames.get(method, 0), _frames_of_ours(frame))
        if _is_ours(frame):
            self.modules.add(module)
            self.calls += 1
            self.deepest = max(self.deepest, _frames_of_ours(frame))


@contextmanager
def counted() -> Iterator[Counts]:
    """Count the calls inside the block, in this thread and in those that it starts."""
    counts = Counts()
    threading.setprofile(counts.note)
    sys.setprofile(counts.note)
    try:
        yield counts
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _is_ours(frame: FrameType) -> bool:
    # without methods that dataclasses generates
    module = frame.f_globals.get("__name__", "")
    return module.split(".")[0] in _PACKAGES and frame.f_code.co_filename != "<string>"


def _frames_of_ours(frame: FrameType | None) -> int:
    number = 0
    while frame is not None:
        number += _is_ours(frame)
        frame = frame.f_back
    return number


def main() -> None:
    """Print the table."""
    with (
        tempfile.TemporaryDirectory() as directory,
        BucketFSServer() as server,
    ):
        os.environ |= {
            "EXA_BUCKETFS_PASSWORD": server.buckets[0].write_password,
            "EXA_BUCKETFS_MOUNT_ROOT": str(server.mount_root),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        folder = Path(directory, "folder")
        folder.mkdir()
        folder.joinpath("file.txt").write_text("content")
        linear(f"{directory}/model", "3")
        bucket = Bucket(server.uri())
        get_artifact_repository(server.uri(path="m")).log_artifacts(f"{directory}/model")
        server.sync_mount()
        # another name of the server, because this process has written under the first one
        mounted = server.uri(path="m").replace("127.0.0.1", "localhost")
        operations: dict[str, Callable[[str], object]] = {
            "Bucket.upload_file": lambda name: bucket.upload_file(
                f"{name}/file.txt", folder / "file.txt"
            ),
            "Bucket.download_file": lambda name: bucket.download_file(
                "m/MLmodel", f"{directory}/{name}"
            ),
            'log_artifacts("dir")': lambda name: get_artifact_repository(
                server.uri(path=name)
            ).log_artifacts(str(folder)),
            "pyfunc.load_model, mount": lambda _: mlflow.pyfunc.load_model(mounted),
        }
        lines = [f"{'':26}  modules  calls  to PUT  to GET  deepest"]
        for title, operation in operations.items():
            operation("first")  # imports, connections
            with counted() as counts:
                operation("second")
            put, get = (counts.frames.get(method, "-") for method in ("PUT", "GET"))
            numbers = f"{len(counts.modules):>9}{counts.calls:>7}{put:>8}{get:>8}"
            lines.append(f"{title:26}{numbers}{counts.deepest:>9}")
            if "-v" in sys.argv:
                lines += [f"    {name}" for name in sorted(counts.modules)]
        sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
