"""The fixtures for script-language containers; nothing is imported or run until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_bucketfs_testing.config import slc_archive_option

if TYPE_CHECKING:
    from pathlib import Path

    import mlflow_bucketfs_testing as testing


@pytest.fixture(scope="session")
def slc_archive(request: pytest.FixtureRequest) -> Path:
    """The exported container that `slc_container` runs: --mlflow-bucketfs-slc-archive.
    Override it to find yours.
    Scope: session. Type: pathlib.Path.
    Example: ``return max(Path(".slc").glob("*.tar.gz"))``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    given = slc_archive_option(request.config)
    if given is None:
        pytest.skip(
            "which container? Use --mlflow-bucketfs-slc-archive FILE, "
            "or override the fixture slc_archive"
        )
    return given


@pytest.fixture(scope="session")
def slc_container(request: pytest.FixtureRequest, slc_archive: Path) -> testing.SlcContainer:
    """Runs commands in `slc_archive` as Exasol runs a UDF; /buckets is that of `bucketfs_server`.
    Skips where it cannot run, unless --mlflow-bucketfs-slc-archive asked for it: then it fails.
    Scope: session. Type: mlflow_bucketfs_testing.SlcContainer.
    Example: ``slc_container.run_python("import my_udf")``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    from mlflow_bucketfs_testing import SlcContainer, SlcUnavailableError  # noqa: PLC0415 -- lazy

    server: testing.BucketFSServer = request.getfixturevalue("bucketfs_server")
    container = SlcContainer(slc_archive, buckets=server.mount_root)
    try:
        container.check()
    except SlcUnavailableError as exc:
        if slc_archive_option(request.config):
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))
    return container
