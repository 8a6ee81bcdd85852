"""The UDFs of ``docs/user/udfs.md``, executed as they are printed there, in three places.

On this machine and in the exported script-language container, exasol-udf-mock-python runs them,
with SQLite for the tables. With an Exasol at hand, the database does it all::

    uv run --group exasol --group slc pytest integration-tests/tests/test_udf_examples.py \
        --backend=onprem
"""
# ruff: noqa: S608 -- the statements are the tests' own

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow_bucketfs_core import ConnectionSettings, mounted_path, udf_path

from . import udf_page
from .udf_places import Container, Exasol, Host

_README = Path(__file__).parents[2] / "README.md"
_REGIONS = ("south", "north")
_FEATURES = "sepal_length, sepal_width, petal_length, petal_width"

# Runs after the page's Python: a second model that says otherwise, and what the tests must know.
_MORE = """
import json

with mlflow.start_run():
    other_model = LogisticRegression(max_iter=1000).fit(features, 2 - species)
    other = mlflow.sklearn.log_model(other_model, name="other", pip_requirements=["scikit-learn"])
flowers = features.iloc[::15]
known = {
    "location": info.artifact_path,
    "path": udf_path(info.artifact_path),
    "other_location": other.artifact_path,
    "flowers": flowers.values.tolist(),
    "species": model.predict(flowers).tolist(),
    "other_species": other_model.predict(flowers).tolist(),
}
print(json.dumps(known))
"""

# The mount follows an upload after a while; MLmodel is uploaded last.
_SEEN = """
CREATE OR REPLACE {language} SCALAR SCRIPT seen(model VARCHAR(2000)) RETURNS BOOLEAN AS
import os, time
def run(ctx):
    deadline = time.monotonic() + 60
    while not os.path.exists(ctx.model + "/MLmodel") and time.monotonic() < deadline:
        time.sleep(1)
    return os.path.exists(ctx.model + "/MLmodel")
"""


@dataclass(frozen=True)
class Iris:
    """The models of the page, and what they say about some flowers."""

    location: str
    path: str
    other_location: str
    flowers: list[list[float]]
    species: list[float]
    other_species: list[float]


@dataclass
class Udfs:
    """A place that executes the page, and what stands there for what the page prints."""

    place: Host | Exasol
    stand_ins: dict[str, str]

    def execute(self, statement: str) -> list[tuple[float, ...]]:
        """Execute a statement; numbers come back as floats, whatever their type is in SQL."""
        return [tuple(map(float, row)) for row in self.place.execute(statement)]

    def read(self, heading: str) -> list[tuple[float, ...]]:
        """Execute a section of the page, and return the rows of its last statement."""
        return [self.execute(each) for each in udf_page.statements(heading, self.stand_ins)][-1]


@pytest.fixture(scope="module")
def iris(mlflow_server, mlflow_client_env, bucketfs_uri, tmp_path_factory) -> Iris:
    """Run the Python of the page in a process of its own, as its reader does."""
    if mlflow_server.backend_store_uri is None:
        pytest.skip("the server of --mlflow-server may have a model `iris` of its own")
    stand_ins = {
        udf_page.LOCATION: f"{bucketfs_uri}/udfs",
        udf_page.TRACKING_SERVER: mlflow_server.uri,
    }
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", udf_page.python(stand_ins) + _MORE],
        env={**clean, **mlflow_client_env},
        cwd=tmp_path_factory.mktemp("reader"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Iris(**json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def mount(iris, bucketfs_target, bucketfs_server) -> Path:
    """The directory that shows the buckets to UDFs, with the models in it."""
    del iris
    if bucketfs_target.backend != "embedded":
        pytest.skip("only the embedded BucketFS has a mount on this machine")
    bucketfs_server.sync_mount()
    bucketfs_server.requests.clear()
    return Path(bucketfs_server.mount_root)


@pytest.fixture
def host(mount, iris, tmp_path) -> Udfs:
    """This machine: the buckets are mounted elsewhere than below /buckets."""
    path = mounted_path(iris.location, ConnectionSettings(mount_root=str(mount)))
    assert path == iris.path.replace("/buckets", str(mount), 1)
    return Udfs(Host(mount, tmp_path), {udf_page.MODEL_PATH: path})


@pytest.fixture
def container(mount, iris, slc_container, tmp_path) -> Udfs:
    """The exported container: it sees /buckets, and has no network."""
    (tmp_path / "udf").mkdir()
    place = Container(slc_container.archive, mount, tmp_path / "udf")
    return Udfs(place, {udf_page.MODEL_PATH: iris.path})


@pytest.fixture
def exasol(request, iris, database) -> Iterator[Udfs]:
    """A real database with the container deployed; its mount shows the models already."""
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
    database.execute(_SEEN.format(language=language))
    for location in (iris.location, iris.other_location):
        seen = database.execute("SELECT seen({model})", {"model": str(udf_path(location))})
        assert seen.fetchval(), f"not on the mount after a minute: {location}"
    stand_ins = {udf_page.MODEL_PATH: iris.path, udf_page.LANGUAGE: language}
    yield Udfs(Exasol(database), stand_ins)
    database.execute("DROP CONNECTION IF EXISTS MLFLOW")
    database.execute("DROP CONNECTION IF EXISTS BUCKETFS")


@pytest.fixture(params=["host", "container", "exasol"])
def udfs(request, iris) -> Udfs:
    """A place that executes the page, with the page's tables, and flowers and models in them."""
    udfs: Udfs = request.getfixturevalue(request.param)
    udfs.stand_ins[udf_page.MODEL_LOCATION] = iris.location
    udfs.read("The model and the flowers")
    flowers = [
        f"({number}, {', '.join(map(str, flower))}, '{_REGIONS[number % 2]}')"
        for number, flower in enumerate(iris.flowers)
    ]
    udfs.execute(f"INSERT INTO flowers VALUES {', '.join(flowers)}")
    models = zip(_REGIONS, (iris.location, iris.other_location), strict=True)
    udfs.execute(f"INSERT INTO models VALUES {', '.join(map(str, models))}")
    return udfs


@pytest.mark.parametrize(
    "heading", ["One row at a time, by location", "By path"], ids=["by_location", "by_path"]
)
def test_one_row_at_a_time(udfs, iris, bucketfs_server, heading):
    """By its location and by its path, the model scores the flower of the page, without HTTP."""
    if heading == "By path":
        udfs.read("One row at a time, by location")
    assert udfs.read(heading) == [(iris.species[0],)]
    assert bucketfs_server.requests.count() == 0


def test_by_alias(udfs, iris, bucketfs_server, mlflow_udf_tracking_uri):
    """The alias is resolved by the tracking server, the files come from the mount."""
    if isinstance(udfs.place, Exasol) and "//127." in mlflow_udf_tracking_uri:
        pytest.skip("an address that UDFs of the database reach: --mlflow-server-host ADDRESS")
    udfs.stand_ins[udf_page.TRACKING_SERVER] = mlflow_udf_tracking_uri
    udfs.place.reaches(mlflow_udf_tracking_uri)
    assert udfs.read("By alias") == [(iris.species[0],)]
    assert bucketfs_server.requests.count() == 0


def test_many_rows_at_a_time(udfs, iris, bucketfs_server):
    """Every flower of the table gets its species."""
    assert sorted(udfs.read("Many rows at a time")) == list(enumerate(iris.species))
    assert bucketfs_server.requests.count() == 0


def test_the_readme_shows_a_script_of_the_page():
    """What it says about scoring is what is tested here."""
    shown = udf_page.sql_blocks(_README.read_text(encoding="utf-8"))
    assert shown
    assert [block for block in shown if block not in udf_page.sql()] == []


def test_several_models(udfs, iris, bucketfs_server):
    """Every flower is scored by the model of its region."""
    udfs.read("Many rows at a time")
    by_region = zip(iris.species, iris.other_species, strict=True)
    expected = [(number, both[number % 2]) for number, both in enumerate(by_region)]
    assert sorted(udfs.read("Several models, one per group")) == expected
    assert bucketfs_server.requests.count() == 0


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_with_a_fallback(udfs, iris, bucketfs_server, tmp_path, harm):
    """A model that the mount lacks or has damaged comes over HTTP, with the password."""
    real = isinstance(udfs.place, Exasol)
    if not real:
        udfs.place.mount = Path(shutil.copytree(udfs.place.mount, tmp_path / "mount"))
        model = udfs.place.mount / udf_path(iris.location).removeprefix("/buckets/")
        if harm == "missing":
            shutil.rmtree(model)
        else:
            next(model.glob("model.*")).write_bytes(b"damaged")
        udfs.place.reaches(bucketfs_server.url)
        udfs.stand_ins[udf_page.READ_PASSWORD] = "read"
    elif harm == "missing":
        pytest.skip("what is in BucketFS comes to the mount of an Exasol")
    assert udfs.read("With a fallback to HTTP") == [(iris.species[0],)]
    if not real:
        assert bucketfs_server.requests.listings == 1
        assert {request.user for request in bucketfs_server.requests} == {"r"}


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
@pytest.mark.parametrize(
    ("heading", "call"),
    [
        ("One row at a time, by location", "species_by_location('{location}', {features})"),
        ("By alias", "species_by_alias({features})"),
        ("Many rows at a time", "species_in_batches('{location}', id, {features})"),
        ("With a fallback to HTTP", "species_with_fallback('{location}', {features})"),
    ],
    ids=["by_location", "by_alias", "in_batches", "with_fallback"],
)
def test_a_process_loads_the_model_once(udfs, iris, mlflow_server, heading, call):
    """However many rows and groups a process gets, it opens the model as often as for one."""
    udfs.stand_ins[udf_page.TRACKING_SERVER] = mlflow_server.uri
    udfs.read(heading)
    select = f"SELECT {call.format(location=iris.location, features=_FEATURES)} FROM flowers"
    assert len(udfs.execute(f"{select} WHERE id = 0")) == 1
    for_one_row = udfs.place.database.models_opened
    assert len(udfs.execute(f"{select} GROUP BY region")) == len(iris.flowers)
    assert udfs.place.database.models_opened == for_one_row > 0


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
def test_more_rows_than_a_data_frame_has(udfs, iris):
    """A group that fills more than one data frame is scored to its last row."""
    udfs.execute("DELETE FROM flowers")
    flower = ", ".join(map(str, iris.flowers[0]))
    rows = ", ".join(f"({number}, {flower}, 'north')" for number in range(10_003))
    udfs.execute(f"INSERT INTO flowers VALUES {rows}")
    scored = sorted(udfs.read("Many rows at a time"))
    assert scored == [(number, iris.species[0]) for number in range(10_003)]


def test_every_statement_of_the_page_is_tried():
    """A section with statements that no test above reads would stay untried."""
    assert udf_page.headings() == [
        "The model and the flowers",
        "One row at a time, by location",
        "By path",
        "By alias",
        "Many rows at a time",
        "Several models, one per group",
        "With a fallback to HTTP",
    ]


def test_the_page_is_split_as_pyexasol_does():
    """Statements end where Exasol's own client for Python sees their end."""
    reason = "comes with the group exasol: uv run --group exasol pytest"
    pyexasol = pytest.importorskip("pyexasol._sql_splitter", reason=reason)
    ours = [each for heading in udf_page.headings() for each in udf_page.statements(heading, {})]
    assert ours == [each.strip() for each in pyexasol.split_sql_script(udf_page.sql())]
