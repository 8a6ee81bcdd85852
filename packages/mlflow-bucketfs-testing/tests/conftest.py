"""What the tests of the pytest plugin share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def bare_environment(monkeypatch):
    """No settings of the developer, or of the options of this run, reach the tests' own runs."""
    prefixes = ("MLFLOW_", "EXA_", "BUCKETFS_", "EXASOL_", "ITDE_", "SAAS_", "PYTEST_ADDOPTS")
    for name in os.environ:
        if name.startswith(prefixes):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def fixture_names():
    """The names of all fixtures that the plugin defines."""
    return [
        "bucketfs_server",
        "bucketfs_target",
        "bucketfs_uri",
        "mlflow_client_env",
        "mlflow_environment",
        "mlflow_server",
        "mlflow_server_host",
        "mlflow_tracking_uri",
        "mlflow_udf_tracking_uri",
        "slc_archive",
        "slc_container",
    ]
