"""MLflow's UI in a real browser, on servers whose artifacts are in BucketFS.

The screenshots of the documentation are made by these tests, on the servers of the tutorial
(``mlflow-bucketfs-testing serve``, and ``mlflow server`` with its artifacts there)::

    MLFLOW_BUCKETFS_SCREENSHOTS=docs/_static EXA_BUCKETFS_PASSWORD=write \
      pytest integration-tests/tests/test_ui.py -k models_page \
        --mlflow-server http://localhost:5000
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

_INSTALL = "uv sync --group system; apt-get install chromium"
_sync_api = pytest.importorskip("playwright.sync_api", reason=f"playwright is missing: {_INSTALL}")
expect = _sync_api.expect

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER = next(filter(None, map(shutil.which, _BROWSERS)), None)
# a mark, because a fixture would skip only after the servers have started
pytestmark = pytest.mark.skipif(
    _BROWSER is None, reason=f"none of {', '.join(_BROWSERS)} is on the path: {_INSTALL}"
)

_SCREENSHOTS = "MLFLOW_BUCKETFS_SCREENSHOTS"
_TIMEOUT_MS = 60_000  # long, because a busy machine lists and renders slowly
_OFFLINE = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
)

OpenUI = Callable[[str], AbstractContextManager["_sync_api.Page"]]


@pytest.fixture(scope="module")
def browser():
    """The distribution's Chromium, without a window."""
    expect.set_options(timeout=_TIMEOUT_MS)
    with _sync_api.sync_playwright() as playwright:
        # Chromium's sandbox does not work for root
        sandbox = os.geteuid() != 0
        running = playwright.chromium.launch(
            executable_path=_BROWSER, args=[*_OFFLINE], chromium_sandbox=sandbox
        )
        yield running
        running.close()


@pytest.fixture
def open_ui(browser, tmp_path: Path) -> OpenUI:
    """Return a context manager that opens a server's UI; on an error, it saves a screenshot."""

    @contextmanager
    def opened(server_uri: str) -> Iterator[_sync_api.Page]:
        context = browser.new_context(base_url=server_uri, viewport={"width": 1280, "height": 720})
        context.set_default_timeout(_TIMEOUT_MS)
        # only requests to the server are allowed, and no telemetry
        context.route(lambda url: urlsplit(url).netloc != urlsplit(server_uri).netloc, _refuse)
        page = context.new_page()
        try:
            yield page
        except Exception as error:
            screenshot = tmp_path / "page.png"
            page.screenshot(path=screenshot)
            raise AssertionError(f"{error}\nThe page at {page.url}: {screenshot}") from error
        finally:
            context.close()

    return opened


def _refuse(route: _sync_api.Route) -> None:
    route.abort()


@dataclass(frozen=True)
class Logged:
    """A logged run with files and a model."""

    server_uri: str
    experiment_id: str
    run_id: str
    model_id: str

    @property
    def run_page(self) -> str:
        """Address of the run's page, relative to the server's."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}"


@pytest.fixture
def logged(
    request: pytest.FixtureRequest,
    bucketfs_uri: str,
    client: MlflowClient,
    unique: str,
    tmp_path: Path,
) -> Logged:
    """A run that was logged directly to BucketFS, or through the server's proxy."""
    del bucketfs_uri, client  # named so that pytest repeats the test on each backend
    fixture = {"direct": "mlflow_server", "proxied": "proxying_mlflow_server"}[request.param]
    server_uri = request.getfixturevalue(fixture).uri
    mlflow.set_tracking_uri(server_uri)
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "notes.txt").write_text("petals matter more than sepals", encoding="utf-8")
    features, species = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=1000).fit(features, species)
    # a readable name for the screenshots of the documentation, which one test at a time makes
    name = "iris" if _SCREENSHOTS in os.environ else f"iris {unique}"
    experiment_id = MlflowClient().create_experiment(name)
    with mlflow.start_run(experiment_id=experiment_id, run_name="first-run") as run:
        mlflow.log_text("logged by itself", "summary.txt")
        mlflow.log_artifacts(str(folder), "report")
        info = mlflow.sklearn.log_model(classifier, name="model", pip_requirements=["scikit-learn"])
    return Logged(server_uri, run.info.experiment_id, run.info.run_id, info.model_id)


@pytest.mark.parametrize("logged", ["direct", "proxied"], indirect=True)
def test_the_artifact_tab_shows_the_files_of_a_run(logged: Logged, open_ui: OpenUI):
    """The tab lists files and folders, and shows the text of a file after a click."""
    with open_ui(logged.server_uri) as page:
        page.goto(logged.run_page)
        _tab(page, "Artifacts").click()
        main = page.get_by_role("main")
        main.get_by_text("summary.txt", exact=True).click()
        expect(main.get_by_role("code")).to_have_text("logged by itself")
        main.get_by_text("report", exact=True).click()
        main.get_by_text("notes.txt", exact=True).click()
        expect(main.get_by_role("code")).to_have_text("petals matter more than sepals")


@pytest.mark.parametrize("logged", ["direct"], indirect=True)
def test_a_models_page_shows_its_files(logged: Logged, open_ui: OpenUI):
    """The run's page links to the model's page, which lists its files and shows MLmodel."""
    with open_ui(logged.server_uri) as page:
        _close_overlays(page)
        page.goto(logged.run_page)
        main = page.get_by_role("main")
        main.get_by_role("link", name="model", exact=True).click()
        _tab(page, "Artifacts").click()
        for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
            expect(main.get_by_text(name, exact=True)).to_be_visible()
        main.get_by_text("MLmodel", exact=True).click()
        text = main.get_by_role("code")
        expect(text).to_contain_text("loader_module: mlflow.sklearn")
        expect(text).to_contain_text(f"model_id: {logged.model_id}")
        _take_screenshot(page, "ui-artifacts.png")


@pytest.mark.parametrize("logged", ["proxied"], indirect=True)
def test_a_model_is_registered_in_the_ui(logged: Logged, open_ui: OpenUI, unique: str):
    """The button on the model's page registers a version, which loads from BucketFS."""
    name = f"species {unique}"
    with open_ui(logged.server_uri) as page:
        page.goto(f"/#/experiments/{logged.experiment_id}/models/{logged.model_id}")
        page.get_by_role("button", name="Register model").click()
        page.get_by_role("dialog").get_by_role("combobox").click()
        page.get_by_text("Create New Model").last.click()
        page.get_by_placeholder("Input a model name").fill(name)
        with page.expect_response("**/model-versions/create"):
            page.get_by_role("button", name="Register", exact=True).click()
        expect(page.get_by_role("main").get_by_role("link", name=name)).to_be_visible()
    model = mlflow.sklearn.load_model(f"models:/{name}/1")
    assert model.predict([[5.1, 3.5, 1.4, 0.2]]).tolist() == [0]


def test_an_experiment_made_in_the_ui_has_its_location(
    client: MlflowClient, artifact_root: str, open_ui: OpenUI, folder_at, unique: str
):
    """Runs store their files at the artifact location that was entered in the dialogue."""
    server_uri = os.environ["MLFLOW_TRACKING_URI"]
    name, location = f"made in the UI {unique}", f"{artifact_root}/made-in-the-ui-{unique}"
    with open_ui(server_uri) as page:
        page.goto("/#/experiments")
        page.get_by_role("button", name="Create", exact=True).click()
        dialogue = page.get_by_role("dialog")
        dialogue.get_by_label("Experiment Name").fill(name)
        dialogue.get_by_label("Artifact Location").fill(location)
        dialogue.get_by_role("button", name="Create", exact=True).click()
        page.wait_for_url(re.compile(r"/experiments/\d+"))
    experiment = client.get_experiment_by_name(name)
    assert experiment.artifact_location == location
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_text(run_id, "stored at the location", "where.txt")
    assert folder_at(location).keys() == [f"{run_id}/artifacts/where.txt"]
    # in a new window, because the other one is still redirected to the new experiment
    with open_ui(server_uri) as page:
        page.goto(f"/#/experiments/{experiment.experiment_id}/runs/{run_id}/artifacts")
        page.get_by_role("main").get_by_text("where.txt", exact=True).click()
        expect(page.get_by_role("code")).to_have_text("stored at the location")


def _tab(page: _sync_api.Page, name: str) -> _sync_api.Locator:
    """Return the tab of a run's page, or the link on a model's page."""
    main = page.get_by_role("main")
    return main.get_by_role("tab", name=name).or_(main.get_by_role("link", name=name))


def _close_overlays(page: _sync_api.Page) -> None:
    """Close MLflow's assistant and the sidebar's menu for agents, if screenshots are enabled."""
    if _SCREENSHOTS in os.environ:
        page.goto("/")
        page.get_by_role("button", name="Close", exact=True).click()
        page.get_by_role("button", name="Model training").click()
        expect(page.get_by_role("link", name="Model registry")).to_be_visible()


def _take_screenshot(page: _sync_api.Page, name: str) -> None:
    """Write a screenshot for the documentation, if screenshots are enabled."""
    if directory := os.environ.get(_SCREENSHOTS):
        page.mouse.move(0, 0)
        page.screenshot(path=Path(directory) / name, animations="disabled")
