"""What a UDF process pays before it can score: every process anew, and there are many."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Cost, Measurement, Row, Sample, Target

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.server import Server

_REPEATS = 5
_IMPORT_REPEATS = 7
_OURS, _MLFLOW, _OTHERS, _ALL = "**ours**", "MLflow", "others", "all together"
_NO_TARGET, _TARGET = Target(), Target(most_seconds=0.05)

# The module of the counterpart that a UDF imports, for udf_path, load_model_with_fallback etc.
_PEER_MODULE = "exasol.mlflow_plugin.artifacts.bucketfs_connector"

_GET_REPOSITORY = (
    "import gc, mlflow\n"
    "gc.collect()\n"  # falls due after all these imports, whoever comes next
    "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository"
)


@dataclass(frozen=True)
class Step:
    """Something that a UDF does once per process.

    Attributes:
        title: what the table calls it.
        code: what is measured.
        whose: whose code most of that is.
        preparation: code that runs before, in the same process.
    """

    title: str
    code: str
    whose: str
    preparation: str = ""


_STEPS = (
    *(
        Step(f"`{code}`", code, whose)
        for code, whose in (
            ("import numpy", _OTHERS),
            ("import pandas", _OTHERS),
            ("import sklearn.linear_model", _OTHERS),
            ("import mlflow", _MLFLOW),
            ("import mlflow.pyfunc", _MLFLOW),
            ("import mlflow.sklearn", _MLFLOW),
            ("from mlflow_bucketfs_core import mounted_path", _OURS),
        )
    ),
    *(
        Step(f"`import mlflow, sklearn.linear_model`{note}", code, _ALL)
        for note, code in (
            ("", "import mlflow, sklearn.linear_model"),
            (
                ", garbage collection off",
                "import gc; gc.disable(); import mlflow, sklearn.linear_model; gc.enable()",
            ),
        )
    ),
    Step(
        "after `import mlflow`: the store for a URI",
        "get_artifact_repository(uri)",
        _OURS,
        preparation=_GET_REPOSITORY,
    ),
    Step(
        "after `import mlflow`: the store, and the model from the mount",
        "get_artifact_repository(uri).download_artifacts('')",
        _OURS,
        preparation=_GET_REPOSITORY,
    ),
    Step(
        "`mlflow.pyfunc.load_model(uri)` in a fresh process",
        "import mlflow; mlflow.pyfunc.load_model(uri)",
        _ALL,
    ),
    Step(
        "`mlflow.sklearn.load_model(uri)` in a fresh process",
        "import mlflow; mlflow.sklearn.load_model(uri)",
        _ALL,
    ),
    Step(
        "the same model without MLflow: `pickle` and `mounted_path`",
        "import pickle\n"
        "from mlflow_bucketfs_core import mounted_path\n"
        "with open(mounted_path(f'{uri}/model.pkl'), 'rb') as file:\n"
        "    pickle.load(file)",
        _ALL,
    ),
)


def costs(bench: Bench, server: Server) -> list[Cost]:
    """Import, and load a small scikit-learn model, each in fresh processes."""
    directory = bench.directory / "model"
    script = Path(__file__).with_name("make_models.py")
    command = [bench.udf.python, "-I", str(script), "linear", str(directory), "10"]
    subprocess.run(command, env=bench.env(), check=True, capture_output=True)
    server.store(directory)
    env = bench.env(
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true", EXA_BUCKETFS_MOUNT_ROOT=server.mount_root()
    )
    server.forget_requests()

    def start() -> Sample:
        started = time.perf_counter()
        subprocess.run([bench.udf.python, "-I", "-c", "pass"], env=env, check=True)
        return Sample(time.perf_counter() - started)

    def run(step: Step) -> Sample:
        return bench.udf.measure(env, "run", step.preparation, step.code, server.artifact_uri)

    # once before: installers do not always compile
    for step in _STEPS:
        run(step)
    starts: list[Sample] = []
    samples: dict[Step, list[Sample]] = {step: [] for step in _STEPS}
    # in turn, so that whatever else the machine does hits all of them
    for _ in range(_REPEATS):
        starts.append(start())
        for step in _STEPS:
            samples[step].append(run(step))
    if server.traffic().requests:
        raise RuntimeError("what should be read from the mount was asked for over HTTP")
    return [
        Cost("starting Python", _OTHERS, Measurement(tuple(starts)), _NO_TARGET),
        *(_cost(step, samples[step]) for step in _STEPS),
    ]


def _cost(step: Step, samples: list[Sample]) -> Cost:
    target = _TARGET if step.whose == _OURS else _NO_TARGET
    return Cost(step.title, step.whose, Measurement(tuple(samples)), target)


def import_modules(bench: Bench, server: Server) -> list[Row]:
    """Import in a fresh process."""
    del server
    return [
        _import_row(bench, f"`import {module}`", f"`import {_PEER_MODULE}`", (module, _PEER_MODULE))
        for module in ("mlflow_bucketfs_core", "mlflow_bucketfs_core.mounted")
    ] + [
        _import_row(bench, "the entry points, during `import mlflow`", bench.peer.name, None),
    ]


def _import_row(bench: Bench, title: str, counterpart: str, modules: tuple[str, str] | None) -> Row:
    env = bench.env()
    ours = ("import", modules[0]) if modules else ("load_entry_points",)
    theirs = ("import", modules[1]) if modules else ("load_entry_points",)
    # once before: installers do not always compile
    bench.ours.measure(env, *ours)
    bench.peer.measure(env, *theirs)
    our_runs, their_runs = bench.alternate(
        lambda: bench.ours.measure(env, *ours),
        lambda: bench.peer.measure(env, *theirs),
        repeats=_IMPORT_REPEATS,
    )
    return Row(title, counterpart, our_runs, their_runs, _TARGET)
