"""Tests of the entry points through which MLflow finds the plugin."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest
from mlflow.data.dataset_source_registry import get_registered_sources
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow_bucketfs_core import uri
from mlflow_bucketfs_plugin import entrypoint
from mlflow_bucketfs_plugin.repository import BucketFSArtifactRepository

SCHEMES = ("exa+bfs", "exa+bfss", "exabfs", "exabfss")


@pytest.mark.parametrize(
    "first_import",
    [
        pytest.param("mlflow", id="mlflow"),
        pytest.param("mlflow_bucketfs_plugin.entrypoint", id="entry point"),
        pytest.param("mlflow_bucketfs_plugin.repository", id="repository"),
    ],
)
def test_schemes_are_registered_whatever_is_imported_first(run_python, first_import):
    """All schemes are registered without a warning, in any order of the imports."""
    output = run_python(
        f"""
        import json, warnings
        with warnings.catch_warnings(record=True) as caught:
            import {first_import}
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
            names = [
                type(get_artifact_repository(f"{{scheme}}://127.0.0.1:1/s/b/p")).__name__
                for scheme in {SCHEMES}
            ]
        about_plugins = [str(w.message) for w in caught if "plugin" in str(w.message).lower()]
        print(json.dumps([names, about_plugins]))
        """
    )
    names, warnings = json.loads(output)
    assert names == ["BucketFSArtifactRepository"] * len(SCHEMES)
    assert warnings == []


def test_every_scheme_that_core_parses_has_an_entry_point():
    """Every scheme that core parses has an entry point."""
    points = entry_points(group="mlflow.artifact_repository")
    ours = {
        p.name for p in points if p.value == f"{entrypoint.__name__}:BucketFSArtifactRepository"
    }
    assert ours == uri.SCHEMES == set(SCHEMES)


def test_entry_point_imports_nothing_heavy(run_python):
    """Loading the entry points imports neither MLflow nor an HTTP client."""
    loaded = run_python(
        """
        import sys
        import mlflow_bucketfs_plugin.entrypoint as module
        module.BucketFSArtifactRepository, module.UnsupportedSaaSArtifactRepository
        print(*sys.modules)
        """
    ).split()
    assert "mlflow_bucketfs_plugin.entrypoint" in loaded
    assert not {"mlflow", "requests", "urllib3", "exasol", "numpy"} & set(loaded)


@pytest.mark.parametrize("scheme", [*SCHEMES, "EXA+BFS"])
def test_registry_passes_everything_on(scheme):
    """The registry's keyword arguments are passed to the repository."""
    repo = get_artifact_repository(
        f"{scheme}://h:1/s/b", tracking_uri="sqlite:///t.db", registry_uri="sqlite:///r.db"
    )
    assert isinstance(repo, BucketFSArtifactRepository)
    assert repo.artifact_uri == f"{scheme}://h:1/s/b"
    assert (repo.tracking_uri, repo.registry_uri) == ("sqlite:///t.db", "sqlite:///r.db")


def test_saas_is_refused_clearly():
    """The scheme of Exasol SaaS is refused, with the schemes to use instead."""
    with pytest.raises(MlflowException, match=r"not supported yet.*Use exa\+bfs://") as caught:
        get_artifact_repository("exa+saas://cloud.exasol.com/account/db")
    assert caught.value.error_code == "NOT_IMPLEMENTED"


def test_unknown_scheme_is_not_taken():
    """A similar scheme is refused by MLflow, and by the entry point."""
    with pytest.raises(MlflowException, match="Could not find a registered artifact repository"):
        get_artifact_repository("exa+ftp://h:1/s/b")
    with pytest.raises(MlflowException, match="is not a BucketFS URI") as caught:
        entrypoint.BucketFSArtifactRepository("exa+ftp://h:1/s/b")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_dataset_source_has_a_readable_name():
    """MLflow's dataset sources, one per scheme, have a readable name."""
    names = [
        source.__name__ for source in get_registered_sources() if "BucketFS" in source.__name__
    ]
    assert names == ["BucketFSArtifactDatasetSource"] * len(SCHEMES)
