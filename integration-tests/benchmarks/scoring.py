"""Scoring in a UDF: the script that is made from a model, and the one in the guide."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

from mlflow_bucketfs_core import udf_path
from mlflow_bucketfs_plugin.scoring import ScriptOptions, scoring_script
from mlflow_bucketfs_testing import UdfRunner

from benchmarks.results import Row, Sample, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_bucketfs_testing import Udf

    from benchmarks.bench import Bench

_MB_PER_TREE = 2
_MANY = 100_000
_ROWS: dict[str, tuple[Any, ...]] = {
    "small": tuple(i / 7 for i in range(10)),
    "mixed": (42, 0.5, "at", True),
}

# docs/user/udfs.md, "Many rows at a time", for other columns
_PLAIN = """
CREATE OR REPLACE PYTHON3 SET SCRIPT PLAIN({parameters}) EMITS (ID DECIMAL(36,0), P DOUBLE) AS
import functools
import mlflow

@functools.cache
def load(location):
    return mlflow.pyfunc.load_model(location)

def run(ctx):
    while (rows := ctx.get_dataframe(num_rows=10000)) is not None:
        rows.columns = [name.lower() for name in rows.columns]
        model = load({location!r})
        rows["p"] = model.predict(rows.drop(columns=["id"])).astype("float64")
        ctx.emit(rows[["id", "p"]].astype(object))
"""
# The minimum of every script: read, predict, emit
_BARE = """
CREATE OR REPLACE PYTHON3 SET SCRIPT BARE({parameters}) EMITS (ID DECIMAL(36,0), P DOUBLE) AS
import functools
import pickle

@functools.cache
def load(location):
    with open(location + "/model.pkl", "rb") as file:
        return pickle.load(file)

def run(ctx):
    while (rows := ctx.get_dataframe(num_rows=10000)) is not None:
        features = rows.iloc[:, 1:]
        features.columns = [name.lower() for name in features.columns]
        rows["P"] = load({location!r}).predict(features)
        ctx.emit(rows[["ID", "P"]].astype(object))
"""
# Measured inside the UDF, around its last call of run
_MEASURED = """
_measured_run = run

def run(ctx):
    import time
    started = time.perf_counter()
    _measured_run(ctx)
    seconds = time.perf_counter() - started
    with open("/proc/self/status") as status:
        memory = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
    print("MEASURED", seconds, memory["VmRSS"], memory["VmHWM"], flush=True)
"""


@dataclass(frozen=True)
class _Run:
    """One process of a UDF client.

    Attributes:
        first_row: from the client's first message to its last, with a single row.
        seconds: the last call of the script's ``run``.
        resident: bytes of memory after it.
        peak: most bytes of memory until then.
    """

    first_row: float
    seconds: float
    resident: int
    peak: int


def score(bench: Bench) -> list[Row]:
    """Score one row in a fresh process, and many rows in one that has loaded its model."""
    directory = bench.directory / "models"
    # by the Python that runs the UDFs
    bench.make_models(sys.executable, "scoring", directory, _forest_mb(bench) // _MB_PER_TREE)
    for name in "small", "mixed", "forest":
        bench.store(directory / name, name)
    environment = bench.env(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true")
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        UdfRunner(buckets=bench.server.mount_root) as runner,
    ):
        return [
            *_first_rows(bench, runner, "small", {"direct": 0.55, "mlflow": 0.85}),
            *_first_rows(bench, runner, "forest", {"direct": 0.75, "mlflow": 1.0}),
            _many_rows(bench, runner, "small"),
            _many_rows(bench, runner, "mixed"),
        ]


def _first_rows(
    bench: Bench,
    runner: UdfRunner,
    model: str,
    limits: dict[Literal["direct", "mlflow"], float],
) -> list[Row]:
    plain = runner.create(_by_hand(bench, _PLAIN, model) + _MEASURED)
    rows = []
    for loader, limit in limits.items():
        made = runner.create(_made(bench, model, loader))
        ours, theirs = bench.alternate(partial(_first_row, made), partial(_first_row, plain))
        title = f"first row of a UDF, {_size(bench, model)}, loader `{loader}`"
        target = Target(least_ratio=1 / limit)
        if model == "forest":
            target = replace(target, most_memory_ratio=0.75, most_peak_ratio=1.0)
        rows.append(Row(title, "`mlflow.pyfunc` in a UDF", ours, theirs, target))
    return rows


def _first_row(udf: Udf) -> Sample:
    measured = _run(udf, [(0, *_ROWS["small"])])
    return Sample(measured.first_row, measured.resident, measured.peak)


def _many_rows(bench: Bench, runner: UdfRunner, model: str) -> Row:
    made = runner.create(_made(bench, model, "direct"))
    bare = runner.create(_by_hand(bench, _BARE, model) + _MEASURED)
    table = [(i, *_ROWS[model]) for i in range(_MANY + 1)]

    def sample(udf: Udf) -> Sample:
        # the first group has the row that loads the model
        measured = _run(udf, table, groups=lambda row: row[0] == 0)
        return Sample(measured.seconds)

    ours, theirs = bench.alternate(lambda: sample(made), lambda: sample(bare))
    title = f"{_MANY:,} rows in a UDF, {'10 numbers' if model == 'small' else 'mixed types'} each"
    return Row(title, "read, predict, emit", ours, theirs, Target(least_ratio=1 / 1.15))


def _made(bench: Bench, model: str, loader: Literal["direct", "mlflow"]) -> str:
    options = ScriptOptions(keys=["ID"], language="PYTHON3", loader=loader)
    script = scoring_script(bench.server.uri(path=model), "SCORE", options)
    return script.text.rstrip().removesuffix("/") + _MEASURED


def _by_hand(bench: Bench, template: str, model: str) -> str:
    made = scoring_script(bench.server.uri(path=model), "SCORE", ScriptOptions(keys=["ID"]))
    # DECIMAL(19,0) would arrive as objects, which MLflow refuses for a long
    types = (column.sql_type.replace("(19,0)", "(18,0)") for column in made.inputs)
    names = (column.name for column in made.inputs)
    parameters = ", ".join(f"{n} {t}" for n, t in zip(names, types, strict=True))
    path = udf_path(bench.server.uri(path=model)).removeprefix("/buckets")
    return template.format(parameters=parameters, location=f"{bench.server.mount_root}{path}")


def _run(udf: Udf, rows: Sequence[tuple[Any, ...]], **options: Any) -> _Run:
    result = udf.run(rows, packet_rows=10_000, **options)
    if len(result.rows) != len(rows):
        raise RuntimeError(f"{len(result.rows)} rows of {len(rows)}:\n{result.output}")
    lines = [line.split() for line in result.output.splitlines() if line.startswith("MEASURED")]
    _, seconds, resident, peak = lines[-1]
    return _Run(result.seconds, float(seconds), int(resident) * 1024, int(peak) * 1024)


def _size(bench: Bench, model: str) -> str:
    return "a small model" if model == "small" else f"a forest of {_forest_mb(bench)} MB"


def _forest_mb(bench: Bench) -> int:
    # smaller than the other models: its trees take long to train, and every run loads it again
    return bench.sizes.model_mb // 3
