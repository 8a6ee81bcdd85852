"""Models in BucketFS, and the three executors of UDFs that score with them.

Two executors run the scripts with a UDF client, and SQLite for the tables: the client of
``--mlflow-bucketfs-udf-client``, and that of the exported script-language container. The third is
an Exasol database, if there is one::

    uv run --group exasol --group slc pytest integration-tests/tests/udf --backend=onprem
"""
# ruff: noqa: S608 -- the statements are the tests' own

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_bucketfs_testing import CONTAINER_CLIENT, REFERENCE_CLIENT, SlcClient
from mlflow_bucketfs_testing.config import udf_client_option
from mlflow_bucketfs_testing.udf.clients import Client
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from . import page
from .executors import Exasol, Runner, forking_client, without_settings

REGIONS = ("south", "north")


@dataclass(frozen=True)
class Models:
    """Two models of iris flowers, with signatures, and their predictions for some flowers."""

    location: str
    other_location: str
    flowers: list[list[float]]
    species: list[float]
    other_species: list[float]


@dataclass
class Udfs:
    """An executor of the pages' statements, and the values that replace the pages' placeholders."""

    executor: Runner | Exasol
    stand_ins: dict[str, str]

    def use(self, location: str) -> None:
        """Replace the model of the pages by this one, as soon as UDFs see it."""
        self.stand_ins[page.MODEL_PATH] = self.executor.path(location)
        self.stand_ins[page.MODEL_LOCATION] = location

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement; numbers are returned as Decimals for all SQL types."""
        return [
            tuple(None if value is None else Decimal(str(value)) for value in row)
            for row in self.executor.execute(statement)
        ]

    def create(self, heading: str) -> None:
        """Execute only the ``CREATE`` statements of a section of the page."""
        for each in page.statements(heading, self.stand_ins):
            if each.startswith("CREATE "):
                self.execute(each)

    def read(self, heading: str) -> list[tuple[Any, ...]]:
        """Execute a section of the page, and return the rows of its last statement."""
        return [self.execute(each) for each in page.statements(heading, self.stand_ins)][-1]

    def insert(self, flowers: list[tuple[int | None, list[float], str]]) -> None:
        """Insert flowers into the table: number, sizes, region."""
        rows = (
            f"({'NULL' if number is None else number}, {', '.join(map(str, sizes))}, '{region}')"
            for number, sizes, region in flowers
        )
        self.execute(f"INSERT INTO flowers VALUES {', '.join(rows)}")


@pytest.fixture(scope="session")
def models(bucketfs_target, bucketfs_uri, tmp_path_factory) -> Models:
    """Save models with MLflow and upload them to BucketFS, without an MLflow server."""
    features, species = load_iris(return_X_y=True, as_frame=True)
    features.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    labels = {"iris": species, "other": 2 - species}
    folder = tmp_path_factory.mktemp("models")
    trained = {
        name: LogisticRegression(max_iter=1000).fit(features, species)
        for name, species in labels.items()
    }
    signature = mlflow.models.infer_signature(features, species)
    for name, model in trained.items():
        mlflow.sklearn.save_model(
            model, folder / name, signature=signature, pip_requirements=["scikit-learn"]
        )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucketfs_target.environment.items():
            patch.setenv(name, value)
        get_artifact_repository(f"{bucketfs_uri}/udf").log_artifacts(str(folder))
    flowers = features.iloc[::15]
    return Models(
        location=f"{bucketfs_uri}/udf/iris",
        other_location=f"{bucketfs_uri}/udf/other",
        flowers=flowers.to_numpy().tolist(),
        species=trained["iris"].predict(flowers).tolist(),
        other_species=trained["other"].predict(flowers).tolist(),
    )


@pytest.fixture(scope="session")
def reference_packages(tmp_path_factory) -> Path:
    """Return a directory with pyzmq, which the reference client needs in the container."""
    folder: Path = tmp_path_factory.mktemp("reference")
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path: pip install uv")
    target = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28")
    wanted = f"pyzmq=={version('pyzmq')}"
    install = (uv, "pip", "install", "--quiet", "--target", folder, "--only-binary", ":all:")
    subprocess.run([*install, "--no-deps", *target, wanted], check=True)
    # readable for the container's user
    folder.chmod(0o755)
    return folder


@pytest.fixture
def mount(models, bucketfs_target, bucketfs_server) -> Path:
    """Return the directory in which UDFs see the buckets, with the models in it."""
    del models
    if bucketfs_target.backend != "embedded":
        pytest.skip("only the embedded BucketFS has a mount on this machine")
    bucketfs_server.sync_mount()
    bucketfs_server.requests.clear()
    return Path(bucketfs_server.mount_root)


@pytest.fixture(scope="session")
def forks() -> Iterator[Client]:
    """Return the reference client, started by forks."""
    with forking_client() as client:
        yield client


@pytest.fixture
def host(request, mount, monkeypatch) -> Iterator[Udfs]:
    """Return an executor with the client of ``--mlflow-bucketfs-udf-client``."""
    for name in os.environ.keys() - without_settings(os.environ).keys():
        monkeypatch.delenv(name)
    name = udf_client_option(request.config)
    if name == REFERENCE_CLIENT:
        forks = request.getfixturevalue("forks")
        runner = Runner(mount, lambda _: forks)
    elif name.startswith(CONTAINER_CLIENT):
        archive = name.removeprefix(CONTAINER_CLIENT)
        runner = Runner(mount, lambda reach: SlcClient(archive, reach=reach))
    else:
        runner = Runner(mount, lambda _: name)
    with closing(runner):
        yield Udfs(runner, {})


@pytest.fixture
def fresh_host(mount) -> Iterator[Udfs]:
    """Return an executor with the reference client, in processes that are not forks."""
    with closing(Runner(mount, lambda _: REFERENCE_CLIENT)) as runner:
        yield Udfs(runner, {})


@pytest.fixture
def container(request, mount, slc_container, slc_archive) -> Iterator[Udfs]:
    """Return an executor with the client of the exported container, or the reference client."""
    del slc_container  # requested, because it skips
    if udf_client_option(request.config).startswith(CONTAINER_CLIENT):
        pytest.skip("--mlflow-bucketfs-udf-client names a container: `host` runs it already")
    info = slc_archive.with_name("build-info.json")
    base = json.loads(info.read_text(encoding="utf-8"))["base_image"] if info.is_file() else {}
    is_stand_in = base.get("origin") not in (None, "pulled")
    # a stand-in for Exasol's base image has no client
    packages = request.getfixturevalue("reference_packages") if is_stand_in else None
    runner = Runner(
        mount, lambda reach: SlcClient(slc_archive, reach=reach, reference_packages=packages)
    )
    with closing(runner):
        yield Udfs(runner, {})


@pytest.fixture
def exasol(request, database) -> Iterator[Udfs]:
    """Return an executor with a real database, in which the container is deployed."""
    if request.config.getoption("--skip-slc"):
        pytest.skip("--skip-slc: the container is not deployed")
    language = request.getfixturevalue("deployed_slc")
    # the container is deployed for new sessions, and this one is older
    languages = "SELECT system_value FROM exa_parameters WHERE parameter_name = 'SCRIPT_LANGUAGES'"
    database.execute(
        "ALTER SESSION SET SCRIPT_LANGUAGES = {languages}",
        {"languages": database.execute(languages).fetchval()},
    )
    # connections belong to no schema: do not replace those of a database that is in use
    names = "('MLFLOW', 'BUCKETFS')"
    query = f"SELECT COUNT(*) FROM exa_all_connections WHERE connection_name IN {names}"
    if int(database.execute(query).fetchval()):
        pytest.skip(f"the page would replace connections of the database: {names}")
    yield Udfs(Exasol(database, language), {page.LANGUAGE: language})
    database.execute("DROP CONNECTION IF EXISTS MLFLOW")
    database.execute("DROP CONNECTION IF EXISTS BUCKETFS")


@pytest.fixture(params=["host", "container", "exasol"])
def udfs(request, models) -> Udfs:
    """Return an executor that has the page's tables, with flowers and models in them."""
    udfs: Udfs = request.getfixturevalue(request.param)
    udfs.use(models.location)
    udfs.executor.path(models.other_location)  # Exasol waits until UDFs see the model
    udfs.read("The model and the flowers")
    udfs.insert(
        [(number, sizes, REGIONS[number % 2]) for number, sizes in enumerate(models.flowers)]
    )
    rows = zip(REGIONS, (models.location, models.other_location), strict=True)
    udfs.execute(f"INSERT INTO models VALUES {', '.join(map(str, rows))}")
    return udfs
