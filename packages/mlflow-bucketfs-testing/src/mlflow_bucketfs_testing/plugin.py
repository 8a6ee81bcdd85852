"""The pytest plugin ``mlflow_bucketfs``: options and default fixtures.

pytest loads it in every test run of an environment that has this package. So it imports only
pytest and the standard library, and no fixture is autouse.
"""

from __future__ import annotations

import sys
import uuid
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from mlflow_bucketfs_testing import factories
from mlflow_bucketfs_testing.config import (
    BucketFSTarget,
    add_mlflow_server_option,
    add_options,
    is_mlflow_server_given,
    mlflow_server_host_option,
    mlflow_server_timeout_option,
    slc_archive_option,
    udf_client_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import mlflow_bucketfs_testing as testing


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    add_options(parser)


@pytest.hookimpl(hookwrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Iterator[None]:
    """Add ``--mlflow-server`` if it is used and no conftest defines it."""
    known, is_given = early_config.known_args_namespace, is_mlflow_server_given(args)
    if is_given:
        # Until the option is defined, pytest takes its URL for the path of a test, and would
        # search it for conftests instead of `testpaths`
        known.file_or_dir = [path for path in known.file_or_dir if "://" not in path]
    yield
    if is_given or known.help:
        add_mlflow_server_option(parser, args)


def pytest_configure(config: pytest.Config) -> None:
    """Check the timeout option before any test runs, and add the fixtures for ``--backend``."""
    mlflow_server_timeout_option(config)
    # Present only if pytest-exasol-backend is loaded, whose options and fixtures are needed
    exasol = sys.modules.get("exasol.pytest_backend")
    if exasol is not None and config.pluginmanager.is_registered(exasol):
        from mlflow_bucketfs_testing import exasol_backend  # noqa: PLC0415 -- useless without it

        if exasol_backend.is_selected(config):
            config.pluginmanager.register(exasol_backend, "mlflow_bucketfs_exasol_backend")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Report the UDF client, if the extra ``[udf]`` is installed."""
    return f"UDF client: {udf_client_option(config)}" if find_spec("zmq") else None


bucketfs_server = factories.bucketfs_server()
mlflow_server = factories.mlflow_server()
mlflow_client_env = factories.mlflow_client_env()
udf_runner = factories.udf_runner()


@pytest.fixture(scope="session")
def bucketfs_target(request: pytest.FixtureRequest) -> BucketFSTarget:
    """The bucket to store to, with credentials: the first one of `bucketfs_server`.
    With --backend, the bucket ``default`` of the selected Exasol instead.
    Scope: session. Type: mlflow_bucketfs_testing.config.BucketFSTarget (uri, user, password).
    Override it to run the same tests against another BucketFS.
    Example: ``login(bucketfs_target.user, bucketfs_target.password)``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    server: testing.BucketFSServer = request.getfixturevalue("bucketfs_server")
    bucket = server.buckets[0]
    return BucketFSTarget(
        uri=server.uri(bucket.name, ""),
        user="w",
        password=bucket.write_password,
        backend="embedded",
    )


@pytest.fixture(scope="session")
def bucketfs_uri(bucketfs_target: BucketFSTarget) -> Iterator[str]:
    """URI of a new folder in `bucketfs_target`, one per session (with pytest-xdist, per worker).
    Its objects are deleted at the end of the session.
    Scope: session. Type: str.
    Example: ``client.create_experiment("e", artifact_location=bucketfs_uri)``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    uri = f"{bucketfs_target.uri.rstrip('/')}/pytest-{uuid.uuid4().hex[:12]}"
    yield uri
    # The embedded server deletes its objects itself, even if a test left a fault in it
    if bucketfs_target.backend != "embedded":
        _delete_folder(uri, bucketfs_target.environment)


@pytest.fixture(scope="session")
def mlflow_server_host(request: pytest.FixtureRequest) -> str:
    """Address that `mlflow_server` listens on: loopback, or --mlflow-bucketfs-mlflow-server-host.
    With --backend=onprem and Exasol in Docker, the address by which its UDFs reach this machine.
    Scope: session. Type: str.
    Example: ``return gateway_of(container)``, to override it for clients elsewhere.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    return mlflow_server_host_option(request.config) or "127.0.0.1"


@pytest.fixture(scope="session")
def mlflow_tracking_uri(
    mlflow_server: testing.MlflowServerProcess | testing.ExternalMlflowServer,
) -> str:
    """Tracking URI of `mlflow_server`. It is not set globally: pass it to the client.
    Scope: session. Type: str.
    Example: ``MlflowClient(mlflow_tracking_uri).search_runs(["0"])``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    return mlflow_server.uri


@pytest.fixture(scope="session")
def mlflow_udf_tracking_uri(mlflow_tracking_uri: str) -> str:
    """Tracking URI as a UDF in the database must use it: that of `mlflow_server_host`.
    Scope: session. Type: str.
    Example: ``run_udf(parameters={"tracking_uri": mlflow_udf_tracking_uri})``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    return mlflow_tracking_uri


@pytest.fixture
def mlflow_environment(
    mlflow_client_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The variables of `mlflow_client_env`, set in this process until the test ends.
    Scope: function. Type: dict[str, str].
    Example: ``@pytest.mark.usefixtures("mlflow_environment")``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    for name, value in mlflow_client_env.items():
        monkeypatch.setenv(name, value)
    return mlflow_client_env


@pytest.fixture(scope="session")
def slc_archive(request: pytest.FixtureRequest) -> Path:
    """The exported container that `slc_container` runs: --mlflow-bucketfs-slc-archive.
    Override it to use another file.
    Scope: session. Type: pathlib.Path.
    Example: ``return max(Path(".slc").glob("*.tar.gz"))``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    given = slc_archive_option(request.config)
    if given is None:
        pytest.skip(
            "no container is configured: use --mlflow-bucketfs-slc-archive FILE, "
            "or override the fixture slc_archive"
        )
    return given


@pytest.fixture(scope="session")
def slc_container(request: pytest.FixtureRequest, slc_archive: Path) -> testing.SlcContainer:
    """Container `slc_archive`, which runs commands as UDFs; /buckets is from `bucketfs_server`.
    Skips if it cannot run, but fails if --mlflow-bucketfs-slc-archive selects it.
    Scope: session. Type: mlflow_bucketfs_testing.SlcContainer.
    Example: ``slc_container.run_python("import my_udf")``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    from mlflow_bucketfs_testing import SlcContainer, SlcUnavailableError  # noqa: PLC0415 -- lazy

    server: testing.BucketFSServer = request.getfixturevalue("bucketfs_server")
    container = SlcContainer(slc_archive, buckets=server.mount_root)
    try:
        container.check()
    except SlcUnavailableError as error:
        if slc_archive_option(request.config):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    return container


def _delete_folder(uri: str, environment: Mapping[str, str]) -> None:
    """Delete every object below a folder; warn if one cannot be deleted.

    It is not an error, because the tests have already passed or failed.

    Args:
        uri: URI of the folder.
        environment: variables with credentials, as ``ConnectionSettings`` reads them.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 -- seldom needed

    from mlflow_bucketfs_core import (  # noqa: PLC0415 -- as rarely
        Bucket,
        BucketFSError,
        BucketFSUri,
        ConnectionSettings,
    )

    folder = BucketFSUri.parse(uri)
    settings = ConnectionSettings.from_env(environment)
    try:
        bucket = Bucket(folder, settings)
        with ThreadPoolExecutor(settings.max_workers) as pool:
            # All deletions are tried before the first error is raised
            deletions = [pool.submit(bucket.delete, key) for key in bucket.keys(folder.path)]
        for deletion in deletions:
            deletion.result()
    except BucketFSError as error:
        with warnings.catch_warnings():
            # as an error it would end pytest with a traceback if the run was interrupted
            warnings.simplefilter("always")
            message = f"The tests' folder {uri} was not deleted: {error}"
            warnings.warn(pytest.PytestWarning(message), stacklevel=1)
