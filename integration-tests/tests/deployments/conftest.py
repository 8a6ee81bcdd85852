"""Fixtures for a database, a model in BucketFS, and MLflow's command line.

The database is a double, or with ``--backend=onprem`` a real Exasol. With a real Exasol, tests that
inspect the double are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from mlflow.models import infer_signature
from mlflow_bucketfs_testing import BucketFSServer, UdfRunner
from mlflow_bucketfs_testing.config import BucketFSTarget
from mlflow_bucketfs_testing.server.tls import Certificate, generate_certificate
from sklearn.linear_model import LinearRegression

from .exasol_double import PASSWORD, USER, ExasolDouble, Rows

MODEL = "churn"
KEY_AND_FEATURES = pd.DataFrame(
    {"customer_id": [9007199254740993, 2], "age": [30.0, 41.5], "income": [1.5, 2.5]}
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a self-signed certificate, like that of an Exasol server."""
    return generate_certificate("exacluster.local", tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def registry(
    tmp_path_factory: pytest.TempPathFactory, bucketfs_uri: str, bucketfs_target: BucketFSTarget
) -> dict[str, str]:
    """Register two versions of a model, the first one champion; return a client's variables."""
    directory = tmp_path_factory.mktemp("registry")
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        **bucketfs_target.environment,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
        location = f"{bucketfs_uri}/deployments"
        experiment = mlflow.create_experiment("churn", artifact_location=location)
        features = KEY_AND_FEATURES[["age", "income"]]
        for factor in (1.0, 10.0):
            target = (features["age"] + features["income"]) * factor
            model = LinearRegression().fit(features, target)
            signature = infer_signature(features, pd.DataFrame({"score": np.asarray(target)}))
            with mlflow.start_run(experiment_id=experiment):
                mlflow.sklearn.log_model(
                    model,
                    name="model",
                    signature=signature,
                    registered_model_name=MODEL,
                    pip_requirements=["scikit-learn"],
                )
        mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", "1")
        mlflow.set_tracking_uri(None)
    return environment


@pytest.fixture(scope="session")
def udf_runner_on_mount(bucketfs_server: BucketFSServer) -> Iterator[UdfRunner]:
    """Yield a runner of scripts that see the embedded BucketFS as a mount."""
    with UdfRunner(buckets=bucketfs_server) as runner:
        yield runner


@pytest.fixture
def exasol(
    request: pytest.FixtureRequest, udf_runner_on_mount: UdfRunner, certificate: Certificate
) -> Iterator[ExasolDouble]:
    """Yield a double of the database with an empty schema ``ML``; skip with ``--backend``."""
    if request.config.getoption("--backend", default=None):
        pytest.skip("inspects the double: run without --backend")

    def run(statement: str, rows: Rows) -> Rows:
        return udf_runner_on_mount.create(statement).run(rows).rows

    with ExasolDouble(run, certificate) as double:
        yield double


@pytest.fixture
def double_database(exasol: ExasolDouble, certificate: Certificate) -> tuple[str, dict[str, str]]:
    """Return the target for the double, and the variables of a user who may deploy there."""
    login = {
        "EXA_USER": USER.lower(),
        "EXA_PASSWORD": PASSWORD,
        "EXA_DSN": f"127.0.0.1/{certificate.fingerprint}:{exasol.port}",
    }
    return f"exasol://127.0.0.1:{exasol.port}/ML", login


@pytest.fixture
def real_database(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """Return the same for an Exasol with a deployed script-language container."""
    if request.config.getoption("--skip-slc"):
        pytest.skip("--skip-slc: the container is not deployed")
    request.getfixturevalue("deployed_slc")
    schema = request.getfixturevalue("database").current_schema()
    found = request.getfixturevalue("backend_aware_database_params")
    login = {"EXA_USER": found["user"], "EXA_PASSWORD": found["password"]}
    # each installation has another certificate
    return f"exasol://{found['dsn']}/{schema}", {**login, "EXA_SSL_CERT_VALIDATION": "no"}


@pytest.fixture
def installation(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """Return target and variables of the database that pytest's options select."""
    is_real = bool(request.config.getoption("--backend", default=None))
    found: tuple[str, dict[str, str]] = request.getfixturevalue(
        "real_database" if is_real else "double_database"
    )
    return found


@pytest.fixture
def environment(
    registry: dict[str, str], installation: tuple[str, dict[str, str]]
) -> dict[str, str]:
    """Return the variables of a user who may deploy, and of the model registry."""
    return {**registry, **installation[1], "EXASOL_TELEMETRY_DISABLE": "1"}


@pytest.fixture
def target(installation: tuple[str, dict[str, str]]) -> str:
    """Return the target's URI."""
    return installation[0]


@pytest.fixture
def client(
    environment: dict[str, str], target: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BaseDeploymentClient]:
    """Yield MLflow's client for the target, in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
    yield get_deploy_client(target)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def deployments(
    environment: dict[str, str], target: str, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs ``mlflow deployments COMMAND -t TARGET …`` as a process."""

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        program = [sys.executable, "-m", "mlflow", "deployments", command, "-t", target]
        return subprocess.run(
            [*program, *arguments],
            env={**inherited, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
