"""The command ``demo``: log a model into BucketFS and load it back, without Exasol."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from mlflow_bucketfs_testing.mlflow_server import MlflowServerProcess
from mlflow_bucketfs_testing.server import BucketFSServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

_MODEL = "iris"
_ALIAS = "champion"
_SCRIPT = ("sql", f"models:/{_MODEL}@{_ALIAS}", "--name", "SPECIES", "--key", "id")
_PIP_COMMAND = 'pip install "mlflow-bucketfs-testing[mlflow]"'

# As in a UDF: a new process without a password, which reads the bucket as a directory.
_UDF_SIDE = """
import json, os, sys, time
import importlib, importlib.util
import mlflow.sklearn
for name in ("sklearn", "skops"):  # imported here, outside the measured time
    if importlib.util.find_spec(name):
        importlib.import_module({"sklearn": "sklearn.linear_model", "skops": "skops.io"}[name])
model_uri, rows = sys.argv[1], json.loads(sys.argv[2])
started = time.perf_counter()
model = mlflow.sklearn.load_model(model_uri)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "predictions": model.predict(rows).tolist()}))
"""


@dataclass(frozen=True)
class Step:
    """One line of the final table.

    Attributes:
        name: name of the step.
        files: number of objects transferred over HTTP.
        transferred_bytes: bytes in their bodies.
        requests: number of requests to BucketFS, listings included.
        seconds: duration of the step.
    """

    name: str
    files: int
    transferred_bytes: int
    requests: int
    seconds: float


def run_demo(*, keep: bool) -> bool:
    """Train a model, log it into an embedded BucketFS, load it back twice, and score with SQL.

    Args:
        keep: leave both servers running until Ctrl-C and print how to use them.

    Returns:
        Whether all predictions of the model are equal.

    Raises:
        click.ClickException: MLflow, scikit-learn or pyzmq is not installed, or the
            script cannot be generated.
    """
    # SIGTERM must clean up the servers as Ctrl-C does; a shell makes background jobs ignore SIGINT
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    missing = [
        name for name in ("mlflow", "sklearn", "zmq") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise click.ClickException(f"{' and '.join(missing)} not installed: {_PIP_COMMAND}")
    # The user's settings for other servers would redirect the demo and its MLflow server
    for name in [*os.environ]:
        if name.startswith(("EXA_", "MLFLOW_", "_MLFLOW_")):
            del os.environ[name]
    with ExitStack() as stack:
        bucketfs = stack.enter_context(BucketFSServer())
        click.echo(f"BucketFS (embedded)   {bucketfs.uri()}")
        credentials = {"EXA_BUCKETFS_USER": "w", "EXA_BUCKETFS_PASSWORD": "write"}
        with _Waiting("MLflow server") as waiting:
            mlflow_server = stack.enter_context(
                MlflowServerProcess(
                    default_artifact_root=bucketfs.uri(path="mlflow"),
                    env=credentials,
                    on_wait=waiting.show,
                )
            )
        click.echo(f"MLflow server         {mlflow_server.uri}")
        agree = _log_and_load(bucketfs, mlflow_server.uri, credentials)
        if keep:
            _keep_running(bucketfs, mlflow_server.uri, credentials)
        return agree


def _log_and_load(bucketfs: BucketFSServer, tracking_uri: str, credentials: dict[str, str]) -> bool:
    # MLflow and the plugin read their settings from the environment.
    os.environ.update(
        credentials, MLFLOW_TRACKING_URI=tracking_uri, MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"
    )
    warnings.simplefilter("ignore")
    click.echo("Importing MLflow and training a model …")
    import mlflow.sklearn  # noqa: PLC0415 -- takes seconds, and is needed only now
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    features, species = load_iris(return_X_y=True, as_frame=True)
    features.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    rows = features[::10].to_numpy().tolist()
    model = LogisticRegression(max_iter=1000).fit(features, species)
    expected = model.predict(rows).tolist()
    signature = infer_signature(features, model.predict(features))
    meter = _Meter(bucketfs)

    def upload() -> None:
        with mlflow.start_run():
            # Otherwise MLflow infers the requirements in a subprocess, which takes seconds
            mlflow.sklearn.log_model(
                model,
                name="model",
                signature=signature,
                registered_model_name=_MODEL,
                pip_requirements=["scikit-learn"],
            )
        mlflow.MlflowClient().set_registered_model_alias(_MODEL, _ALIAS, "1")

    def load_over_http() -> list[int]:
        loaded = mlflow.sklearn.load_model(f"models:/{_MODEL}@{_ALIAS}")
        predictions: list[int] = loaded.predict(rows).tolist()
        return predictions

    uploaded, _ = meter.measure("log the model", upload)
    click.echo(f"Logged as             models:/{_MODEL}@{_ALIAS}")
    for key in bucketfs.keys():  # noqa: SIM118 -- not a dict
        click.echo(f"  {key}")
    over_http, http_predictions = meter.measure("load over HTTP", load_over_http)
    mounted, mount_predictions = _load_from_mount(meter, bucketfs, rows)
    click.echo(f"Script from           mlflow-bucketfs {shlex.join(_SCRIPT)}")
    scored, sql_predictions = _score_with_sql(meter, bucketfs, rows)
    _print_table([uploaded, over_http, mounted, scored])
    predictions = [expected, http_predictions, mount_predictions, sql_predictions]
    agree = all(each == expected for each in predictions)
    click.echo(
        f"All predict the same for {len(rows)} rows."
        if agree
        else f"DIFFERENT PREDICTIONS: {', '.join(map(str, predictions))}"
    )
    return agree


def _load_from_mount(
    meter: _Meter, bucketfs: BucketFSServer, rows: list[list[float]]
) -> tuple[Step, list[int]]:
    bucketfs.sync_mount()
    env = {**os.environ, "EXA_BUCKETFS_MOUNT_ROOT": str(bucketfs.mount_root)}
    del env["EXA_BUCKETFS_PASSWORD"]
    command = [sys.executable, "-W", "ignore", "-c", _UDF_SIDE]

    def load() -> dict[str, Any]:
        completed = subprocess.run(  # noqa: S603 -- our own code in our own Python
            [*command, f"models:/{_MODEL}@{_ALIAS}", json.dumps(rows)],
            env=env,
            stdout=subprocess.PIPE,
            check=True,
        )
        result: dict[str, Any] = json.loads(completed.stdout)
        return result

    step, result = meter.measure("load from the mount", load)
    return (
        # the time without starting Python and importing MLflow, as in the other lines
        replace(step, seconds=result["seconds"]),
        result["predictions"],
    )


def _score_with_sql(
    meter: _Meter, bucketfs: BucketFSServer, rows: list[list[float]]
) -> tuple[Step, list[int]]:
    """Generate a script from the model's signature, and run it without a database."""
    from mlflow_bucketfs_testing.udf.runner import UdfRunner  # noqa: PLC0415 -- of the extra

    made = subprocess.run(  # noqa: S603 -- a command of ours, in our own Python
        [sys.executable, "-c", "from mlflow_bucketfs_plugin.cli import main; main()", *_SCRIPT],
        capture_output=True,
        check=False,
        text=True,
    )
    if made.returncode:
        raise click.ClickException(f"cannot generate a script:\n{made.stderr.strip()}")
    bucketfs.sync_mount()
    with UdfRunner(buckets=bucketfs) as runner:
        script = runner.create(made.stdout)
        step, result = meter.measure(
            "score with SQL", lambda: script.run([(i, *row) for i, row in enumerate(rows)])
        )
    # without the start of the process, as in the other lines
    return replace(step, seconds=result.seconds), [int(row[-1]) for row in result.rows]


class _Meter:
    """Measures the requests, bytes and seconds of an action."""

    def __init__(self, bucketfs: BucketFSServer) -> None:
        self._bucketfs = bucketfs

    def measure(self, name: str, action: Callable[[], Any]) -> tuple[Step, Any]:
        self._bucketfs.requests.clear()
        started = time.perf_counter()
        result = action()
        seconds = time.perf_counter() - started
        requests = list(self._bucketfs.requests)
        objects = [r for r in requests if r.key]
        moved = sum(r.bytes_received + r.bytes_sent for r in objects)
        return Step(name, len(objects), moved, len(requests), seconds), result


def _print_table(steps: list[Step]) -> None:
    click.echo(f"\n{'':21}{'files':>7}{'bytes':>9}{'requests':>10}{'seconds':>9}")
    for s in steps:
        click.echo(
            f"{s.name:21}{s.files:>7}{s.transferred_bytes:>9}{s.requests:>10}{s.seconds:>9.2f}"
        )
    click.echo("")


def _keep_running(bucketfs: BucketFSServer, tracking_uri: str, credentials: dict[str, str]) -> None:
    click.echo(f"\nMLflow UI: {tracking_uri}\nTo use both servers from another terminal:\n")
    for name, value in {"MLFLOW_TRACKING_URI": tracking_uri, **credentials}.items():
        click.echo(f"export {name}={value}")
    click.echo(f"\nMount root, as UDFs see /buckets: {bucketfs.mount_root}")
    click.echo("Ctrl-C stops both.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("\nStopping …")


class _Waiting:
    """A line of output that counts the seconds until a server is ready."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._is_terminal = sys.stdout.isatty()
        self._shown_s = -1

    def show(self, elapsed_s: float) -> None:
        """Show the elapsed seconds; only every fifth one if the output is not a terminal."""
        step_s = 1 if self._is_terminal else 5
        if int(elapsed_s) // step_s > self._shown_s:
            self._shown_s = int(elapsed_s) // step_s
            text = f"{self._server} is starting … {int(elapsed_s)} s (10 to 30 s are usual)"
            click.echo(f"\r{text}" if self._is_terminal else text, nl=not self._is_terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            click.echo("")
