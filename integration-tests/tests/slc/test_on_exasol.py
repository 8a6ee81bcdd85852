"""What pytest-exasol-slc does with our builder; no database is asked.

The container in a real database is tried by ``integration-tests/tests/udf``.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def test_pytest_exasol_slc_exports_our_container(request, bucketfs_target):
    """Its fixture ``export_slc`` gets the file from our ``slc_builder``."""
    if bucketfs_target.backend != "onprem" or request.config.getoption("--skip-slc"):
        pytest.skip("needs --backend=onprem, without --skip-slc")
    exported: Path = request.getfixturevalue("export_slc")
    assert exported.name.startswith("mlflow-bucketfs-python-3.12-release-x64-")
    assert exported.suffixes[-2:] == [".tar", ".gz"]
    assert exported.is_file()
