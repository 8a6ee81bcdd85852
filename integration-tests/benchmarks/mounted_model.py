"""A model loaded as in a UDF, from the mounted bucket, and as elsewhere, over HTTP."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Row, Target

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.results import Sample
    from benchmarks.server import Server

_BYTES_PER_COEFFICIENT = 8


def load(bench: Bench, server: Server) -> list[Row]:
    """Load a scikit-learn model with ``mlflow.sklearn.load_model``."""
    directory = bench.directory / "model"
    _make_model(bench, directory)
    server.store(directory)
    mount_root = server.mount_root()

    def run(**variables: str) -> Sample:
        server.forget_requests()
        env = bench.env(server, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true", **variables)
        sample = bench.ours.measure(env, "load_model", server.artifact_uri)
        return replace(sample, traffic=server.traffic())

    from_mount, over_http = bench.alternate(
        lambda: run(EXA_BUCKETFS_MOUNT_ROOT=mount_root),
        run,
    )
    title = f"load a {bench.sizes.model_mb} MB model from the mount"
    target = Target(least_ratio=1, most_requests=0)
    return [Row(title, "the same over HTTP", from_mount, over_http, target)]


def _make_model(bench: Bench, directory: Path) -> None:
    # not in this process, which would keep the memory
    script = Path(__file__).with_name("make_models.py")
    number = bench.sizes.model_mb * 10**6 // _BYTES_PER_COEFFICIENT
    command = [bench.ours.python, "-I", str(script), "linear", str(directory), str(number)]
    subprocess.run(command, env=bench.env(), check=True, capture_output=True)
