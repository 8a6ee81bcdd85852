"""The start of each UDF process, before it can score: imports, and loading the model."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.results import Cost, Measurement, Row, Sample, Target

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_BYTES_PER_COEFFICIENT = 8
_REPEATS = 5
_IMPORT_REPEATS = 7
_OURS, _MLFLOW, _OTHERS, _ALL = "**ours**", "MLflow", "others", "all together"
_NO_TARGET, _TARGET = Target(), Target(most_seconds=0.05)

# The module of the counterpart that a UDF imports, for udf_path, load_model_with_fallback etc.
_PEER_MODULE = "exasol.mlflow_plugin.artifacts.bucketfs_connector"

_GET_REPOSITORY = (
    "import gc, mlflow\n"
    "gc.collect()\n"  # otherwise, it would run during the measured code
    "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository"
)


@dataclass(frozen=True)
class Step:
    """A step that each UDF process runs once.

    Attributes:
        title: its name in the table.
        code: the measured code.
        whose: owner of most of that code.
        preparation: code that runs before, in the same process.
    """

    title: str
    code: str
    whose: str
    preparation: str = ""


_STEPS = (
    Step("`import numpy`", "import numpy", _OTHERS),
    Step("`import pandas`", "import pandas", _OTHERS),
    Step("`import sklearn.linear_model`", "import sklearn.linear_model", _OTHERS),
    Step("`import mlflow`", "import mlflow", _MLFLOW),
    Step("`import mlflow.pyfunc`", "import mlflow.pyfunc", _MLFLOW),
    Step("`import mlflow.sklearn`", "import mlflow.sklearn", _MLFLOW),
    Step(
        "`from mlflow_bucketfs_core import mounted_path`",
        "from mlflow_bucketfs_core import mounted_path",
        _OURS,
    ),
    Step("`import mlflow, sklearn.linear_model`", "import mlflow, sklearn.linear_model", _ALL),
    Step(
        "`import mlflow, sklearn.linear_model`, garbage collection off",
        "import gc; gc.disable(); import mlflow, sklearn.linear_model; gc.enable()",
        _ALL,
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


def costs(bench: Bench) -> list[Cost]:
    """Measure imports, and loading a small scikit-learn model, in fresh processes."""
    directory = bench.directory / "model"
    bench.make_models(bench.udf.python, "linear", directory, 10)
    bench.store(directory)
    env = bench.env(
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true",
        EXA_BUCKETFS_MOUNT_ROOT=str(bench.server.mount_root),
    )
    bench.server.requests.clear()

    def start() -> Sample:
        started = time.perf_counter()
        subprocess.run([bench.udf.python, "-I", "-c", "pass"], env=env, check=True)
        return Sample(time.perf_counter() - started)

    def run(step: Step) -> Sample:
        return bench.udf.measure(env, "run", step.preparation, step.code, bench.artifact_uri)

    # a run that is not measured, because installers do not always compile
    for step in _STEPS:
        run(step)
    starts: list[Sample] = []
    samples: dict[Step, list[Sample]] = {step: [] for step in _STEPS}
    # in turn, as in Bench.alternate
    for _ in range(_REPEATS):
        starts.append(start())
        for step in _STEPS:
            samples[step].append(run(step))
    if len(bench.server.requests):
        raise RuntimeError("the model was requested over HTTP, not read from the mount")
    return [
        Cost("starting Python", _OTHERS, Measurement(tuple(starts)), _NO_TARGET),
        *(_cost(step, samples[step]) for step in _STEPS),
    ]


def _cost(step: Step, samples: list[Sample]) -> Cost:
    target = _TARGET if step.whose == _OURS else _NO_TARGET
    return Cost(step.title, step.whose, Measurement(tuple(samples)), target)


def import_modules(bench: Bench) -> list[Row]:
    """Import in a fresh process."""
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
    # a run that is not measured, because installers do not always compile
    bench.ours.measure(env, *ours)
    bench.peer.measure(env, *theirs)
    our_runs, their_runs = bench.alternate(
        lambda: bench.ours.measure(env, *ours),
        lambda: bench.peer.measure(env, *theirs),
        repeats=_IMPORT_REPEATS,
    )
    return Row(title, counterpart, our_runs, their_runs, _TARGET)


def load_model(bench: Bench) -> list[Row]:
    """Load a large scikit-learn model, from the mount as in a UDF, and over HTTP."""
    directory = bench.directory / "model"
    number = bench.sizes.model_mb * 10**6 // _BYTES_PER_COEFFICIENT
    bench.make_models(bench.ours.python, "linear", directory, number)
    bench.store(directory)
    mount_root = str(bench.server.mount_root)

    def run(**variables: str) -> Sample:
        bench.server.requests.clear()
        env = bench.env(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true", **variables)
        sample = bench.ours.measure(env, "load_model", bench.artifact_uri)
        return replace(sample, traffic=bench.traffic())

    from_mount, over_http = bench.alternate(
        lambda: run(EXA_BUCKETFS_MOUNT_ROOT=mount_root),
        run,
    )
    title = f"load a {bench.sizes.model_mb} MB model from the mount"
    target = Target(least_ratio=1, most_requests=0)
    return [Row(title, "the same over HTTP", from_mount, over_http, target)]
