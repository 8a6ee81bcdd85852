"""pytest-exasol-slc exports our container; no database is used.

``integration-tests/tests/udf`` tests the container in a real database.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def test_pytest_exasol_slc_exports_our_container(request, bucketfs_target):
    """The fixture ``export_slc`` returns the file of our ``slc_builder``."""
    if bucketfs_target.backend != "onprem" or request.config.getoption("--skip-slc"):
        pytest.skip("needs --backend=onprem, without --skip-slc")
    exported: Path = request.getfixturevalue("export_slc")
    assert exported.name.startswith("mlflow-bucketfs-python-3.12-release-x64-")
    assert exported.suffixes[-2:] == [".tar", ".gz"]
    assert exported.is_file()
