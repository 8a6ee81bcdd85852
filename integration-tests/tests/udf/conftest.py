"""Models in BucketFS, and the three places where UDFs score with them.

On this machine and in the exported script-language container, exasol-udf-mock-python runs the
scripts, with SQLite for the tables. With an Exasol at hand, the database does it all::

    uv run --group exasol --group slc pytest integration-tests/tests/udf --backend=onprem
"""
# ruff: noqa: S608 -- the statements are the tests' own

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from . import page
from .places import Container, Exasol, ForkingHost, Host, UdfProcesses

REGIONS = ("south", "north")


@dataclass(frozen=True)
class Models:
    """Two models of iris flowers, with signatures, and what they say about some flowers."""

    location: str
    other_location: str
    flowers: list[list[float]]
    species: list[float]
    other_species: list[float]


@dataclass
class Udfs:
    """A place that executes pages, and what stands there for what the pages print."""

    place: Host | Exasol
    stand_ins: dict[str, str]

    def use(self, location: str) -> None:
        """Let a model stand for the one of the pages, as soon as UDFs see it."""
        self.stand_ins[page.MODEL_PATH] = self.place.path(location)
        self.stand_ins[page.MODEL_LOCATION] = location

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement; numbers come back as Decimals, whatever their type is in SQL."""
        return [
            tuple(None if value is None else Decimal(str(value)) for value in row)
            for row in self.place.execute(statement)
        ]

    def create(self, heading: str) -> None:
        """Execute what a section of the page creates, and nothing else."""
        for each in page.statements(heading, self.stand_ins):
            if each.startswith("CREATE "):
                self.execute(each)

    def read(self, heading: str) -> list[tuple[Any, ...]]:
        """Execute a section of the page, and return the rows of its last statement."""
        return [self.execute(each) for each in page.statements(heading, self.stand_ins)][-1]

    def insert(self, flowers: list[tuple[int | None, list[float], str]]) -> None:
        """Put flowers into the table: number, sizes, region."""
        rows = (
            f"({'NULL' if number is None else number}, {', '.join(map(str, sizes))}, '{region}')"
            for number, sizes, region in flowers
        )
        self.execute(f"INSERT INTO flowers VALUES {', '.join(rows)}")


@pytest.fixture(scope="session")
def models(bucketfs_target, bucketfs_uri, tmp_path_factory) -> Models:
    """Save models as MLflow does, and put them into BucketFS; that needs no MLflow server."""
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
def udf_processes() -> Iterator[UdfProcesses]:
    """What starts the processes of UDFs on this machine."""
    processes = UdfProcesses()
    yield processes
    processes.close()


@pytest.fixture
def mount(models, bucketfs_target, bucketfs_server) -> Path:
    """The directory that shows the buckets to UDFs, with the models in it."""
    del models
    if bucketfs_target.backend != "embedded":
        pytest.skip("only the embedded BucketFS has a mount on this machine")
    bucketfs_server.sync_mount()
    bucketfs_server.requests.clear()
    return Path(bucketfs_server.mount_root)


@pytest.fixture
def host(mount, udf_processes, tmp_path) -> Udfs:
    """This machine: the buckets are mounted elsewhere than below /buckets."""
    return Udfs(ForkingHost(mount, tmp_path, udf_processes), {})


@pytest.fixture
def fresh_host(mount, tmp_path) -> Udfs:
    """This machine, with processes that import everything themselves."""
    return Udfs(Host(mount, tmp_path), {})


@pytest.fixture
def container(mount, slc_container, tmp_path) -> Udfs:
    """The exported container: it sees /buckets, and has no network."""
    (tmp_path / "udf").mkdir()
    return Udfs(Container(slc_container.archive, mount, tmp_path / "udf"), {})


@pytest.fixture
def exasol(request, database) -> Iterator[Udfs]:
    """A real database with the container deployed."""
    if request.config.getoption("--skip-slc"):
        pytest.skip("--skip-slc: the container is not deployed")
    language = request.getfixturevalue("deployed_slc")
    # deployed for new sessions: this one is older
    languages = "SELECT system_value FROM exa_parameters WHERE parameter_name = 'SCRIPT_LANGUAGES'"
    database.execute(
        "ALTER SESSION SET SCRIPT_LANGUAGES = {languages}",
        {"languages": database.execute(languages).fetchval()},
    )
    # they belong to no schema: those of a database that is in use must stay as they are
    names = "('MLFLOW', 'BUCKETFS')"
    query = f"SELECT COUNT(*) FROM exa_all_connections WHERE connection_name IN {names}"
    if int(database.execute(query).fetchval()):
        pytest.skip(f"the database has connections of the names {names}, which the page replaces")
    yield Udfs(Exasol(database, language), {page.LANGUAGE: language})
    database.execute("DROP CONNECTION IF EXISTS MLFLOW")
    database.execute("DROP CONNECTION IF EXISTS BUCKETFS")


@pytest.fixture(params=["host", "container", "exasol"])
def udfs(request, models) -> Udfs:
    """A place that executes the page, with the page's tables, and flowers and models in them."""
    udfs: Udfs = request.getfixturevalue(request.param)
    udfs.use(models.location)
    udfs.place.path(models.other_location)  # an Exasol waits until UDFs see it
    udfs.read("The model and the flowers")
    udfs.insert(
        [(number, sizes, REGIONS[number % 2]) for number, sizes in enumerate(models.flowers)]
    )
    rows = zip(REGIONS, (models.location, models.other_location), strict=True)
    udfs.execute(f"INSERT INTO models VALUES {', '.join(map(str, rows))}")
    return udfs
