"""Importing the package: fast, complete and typed."""

from __future__ import annotations

import importlib.metadata
import importlib.resources

import mlflow_bucketfs_core
import pytest

HEAVY = ("requests", "urllib3", "exasol", "mlflow", "ssl", "http.client")


@pytest.mark.parametrize(
    "statement",
    [
        "import mlflow_bucketfs_core",
        "import mlflow_bucketfs_core; dir(mlflow_bucketfs_core)",
        "from mlflow_bucketfs_core import BucketFSUri, BucketFSError, ConnectionSettings",
        "from mlflow_bucketfs_core import udf_path, mounted_path, local_path_or_uri",
        "from mlflow_bucketfs_core import load_model_with_fallback",
        "import mlflow_bucketfs_core.errors, mlflow_bucketfs_core.listing",
    ],
)
def test_imports_load_no_http(run_python, statement):
    """The names that a UDF needs for a mounted model import no library for HTTP."""
    code = f"""
    {statement}
    import sys
    print(*(name for name in {HEAVY} if name in sys.modules))
    """
    assert run_python(code)[0].split() == []


def test_transfers_load_no_more_than_they_need(run_python, server):
    """A request imports neither exasol-bucketfs nor, without a proxy, requests."""
    code = """
    import sys
    from mlflow_bucketfs_core import Bucket
    Bucket(sys.argv[1]).keys()
    print(*(n for n in ("requests", "exasol.bucketfs", "mlflow") if n in sys.modules))
    assert "urllib3" in sys.modules
    """
    assert run_python(code, server.uri())[0].split() == []


def test_lazy_names_are_all_there(run_python):
    """All public names are available as attributes, in ``dir`` and by ``import *``."""
    assert set(mlflow_bucketfs_core.__all__) == set(mlflow_bucketfs_core._MODULES)
    for name in mlflow_bucketfs_core.__all__:
        assert getattr(mlflow_bucketfs_core, name).__name__ == name
        assert name in dir(mlflow_bucketfs_core)
    code = """
    from mlflow_bucketfs_core import *
    print(*sorted(name for name in globals() if not name.startswith("__")))
    """
    assert run_python(code)[0].split() == sorted(mlflow_bucketfs_core.__all__)


def test_the_version_is_that_of_the_distribution():
    """``__version__`` is the version of the distribution."""
    expected = importlib.metadata.version("mlflow-bucketfs-core")
    assert mlflow_bucketfs_core.__version__ == expected
    assert "__version__" in dir(mlflow_bucketfs_core)


def test_unknown_names_are_attribute_errors():
    """A misspelt name raises ``AttributeError``."""
    with pytest.raises(AttributeError, match="'mlflow_bucketfs_core' has no attribute 'Bukket'"):
        mlflow_bucketfs_core.Bukket  # noqa: B018


def test_the_package_is_typed():
    """The package contains the marker for type checkers."""
    files = importlib.resources.files("mlflow_bucketfs_core")
    assert files.joinpath("py.typed").is_file()
