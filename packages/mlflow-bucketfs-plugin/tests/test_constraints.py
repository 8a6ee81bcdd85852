"""Tests of comparing a model's versions with those of a container."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_plugin.constraints import check_numpy, compare, compare_model
from mlflow_bucketfs_plugin.models import check_model
from mlflow_bucketfs_plugin.transfers import files_below

CONSTRAINTS = "mlflow-skinny==3.17.2\nnumpy==1.26.4\nscikit-learn==1.9.1\n"
# Bytes that numpy 2 writes into a pickle at its first array
BY_NUMPY_2 = b"\x80\x05\x95\x8cnumpy._core.multiarray\x94\x8c\x0c_reconstruct\x94"
BY_NUMPY_1 = BY_NUMPY_2.replace(b"._core", b".core")
_CTOR = b"\x8c\x14__bit_generator_ctor\x94\x93\x94"
GENERATOR = _CTOR + b"\x8c\x15numpy.random._mt19937\x94\x8c\x07MT19937\x94" + BY_NUMPY_2
_PCG64 = _CTOR + b"\x8c\x13numpy.random._pcg64\x94\x8c\x05PCG64\x94\x93\x94"
GENERATOR_OF_NUMPY_1 = b"\x8c\x07MT19937\x94h\x00" + _CTOR + b"\x86\x94R\x94}\x94(" + BY_NUMPY_1


@pytest.fixture
def model(tmp_path):
    """A model's directory, without a pickle."""
    directory = tmp_path / "model"
    directory.mkdir()
    requirements = "mlflow==3.17.2\nscikit-learn==1.9.1\n"
    (directory / "requirements.txt").write_text(requirements, encoding="utf-8")
    return directory


@pytest.fixture
def constraints(tmp_path):
    """A container's constraints.txt."""
    file = tmp_path / "constraints.txt"
    file.write_text(CONSTRAINTS, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ("scikit-learn==1.9.1", []),
        ("Scikit_Learn == 1.9.1  # a comment", []),
        ("mlflow==3.17.2", []),
        ("scikit-learn", []),
        ("scikit-learn==1.8.0", ["scikit-learn: ==1.8.0 in the model, 1.9.1 in the container"]),
        ("torch==2.9.0", ["torch: ==2.9.0 in the model, not there in the container"]),
        ("torch", ["torch: any version in the model, not there in the container"]),
        ("torch==2.9.0; sys_platform == 'never'", []),
        ("-r other.txt\n./local.whl\n\n# torch", []),
    ],
)
def test_requirements_are_compared(requirements, expected):
    """Other versions and missing packages are reported; mlflow-skinny counts as mlflow."""
    assert [str(difference) for difference in compare(requirements, CONSTRAINTS)] == expected


def test_numpy_2_is_recognized_in_a_pickle(model):
    """A pickle of numpy 2 is reported, although a model's requirements never name numpy."""
    (model / "model.pkl").write_bytes(BY_NUMPY_1)
    assert compare_model(model, CONSTRAINTS) == []
    (model / "model.pkl").write_bytes(BY_NUMPY_2)
    (difference,) = compare_model(model, CONSTRAINTS)
    assert str(difference) == "numpy: 2 or later (model.pkl) in the model, 1.26.4 in the container"
    assert compare_model(model, CONSTRAINTS.replace("1.26.4", "2.4.6")) == []


def test_the_installed_numpy_is_recognized(model):
    """The installed numpy writes the bytes that are searched for."""
    (model / "model.pkl").write_bytes(pickle.dumps(np.arange(3.0)))
    is_new = int(np.__version__.partition(".")[0]) > 1
    assert bool(compare_model(model, CONSTRAINTS)) == is_new


@pytest.fixture(params=["1.26.4", "2.4.6"])
def installed(request, tmp_path, monkeypatch):
    """A version of numpy in the metadata of an installed distribution."""
    info = tmp_path / "site" / f"numpy-{request.param}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: numpy\nVersion: {request.param}\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))
    return request.param


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("content", [BY_NUMPY_2, BY_NUMPY_1, GENERATOR, GENERATOR_OF_NUMPY_1])
def test_a_generator_that_numpy_1_cannot_load_is_refused(model, installed, caplog, content, named):
    """With numpy 1, a random generator of numpy 2 in a pickle that MLflow loads is an error."""
    (model / "model.pkl").write_bytes(content)
    files, loaded = {"model.pkl": model / "model.pkl"}, {"model.pkl"} if named else set()
    is_refused = installed.startswith("1.") and content is GENERATOR and named
    is_suspect = installed.startswith("1.") and b"numpy._core" in content
    with caplog.at_level(logging.WARNING):
        if is_refused:
            with pytest.raises(MlflowException, match=r"model.pkl was written with .* constraints"):
                check_numpy(files, loaded)
        else:
            check_numpy(files, loaded)
    assert ("constraints.txt" in caplog.text) == (is_suspect and not is_refused)


def test_the_installed_generator_is_recognized():
    """The pickles in these tests match those of the installed numpy."""
    is_new = int(np.__version__.partition(".")[0]) > 1
    expected = GENERATOR if is_new else GENERATOR_OF_NUMPY_1
    start = expected.partition(b"__bit_generator_ctor")[2][:10]
    assert start in pickle.dumps(np.random.RandomState(1))


def test_the_command_prints_the_differences(model, constraints):
    """The command prints the differences and a remedy, and exits with 1."""
    (model / "model.pkl").write_bytes(BY_NUMPY_2)
    done = CliRunner().invoke(main, ["constraints", str(model), str(constraints)])
    assert done.exit_code == 1
    assert "numpy: 2 or later (model.pkl) in the model" in done.output
    assert f"pip install -c {constraints}" in done.output


def test_the_command_accepts_equal_versions(model, constraints):
    """For equal versions, the command exits with 0, for the directory and its requirements.txt."""
    for given in (model, model / "requirements.txt"):
        done = CliRunner().invoke(main, ["constraints", str(given), str(constraints)])
        assert (done.exit_code, done.output) == (
            0,
            "The model and the container have the same versions.\n",
        )


def test_the_command_takes_a_uri(bucketfs_server, constraints, model, monkeypatch):
    """The command downloads a model from its URI."""
    monkeypatch.setenv("EXA_BUCKETFS_PASSWORD", bucketfs_server.buckets[0].write_password)
    from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415
        get_artifact_repository,
    )

    uri = bucketfs_server.uri("default", "constraints")
    get_artifact_repository(uri).log_artifacts(str(model))
    done = CliRunner().invoke(main, ["constraints", uri, str(constraints)])
    assert done.exit_code == 0, done.output


def test_the_command_reports_a_missing_model(tmp_path, constraints):
    """Without a model, the command exits with 2 and names the missing file."""
    done = CliRunner().invoke(main, ["constraints", str(tmp_path), str(constraints)])
    assert done.exit_code == 2
    assert "requirements.txt" in done.output
    done = CliRunner().invoke(main, ["constraints", "nodir", str(constraints)])
    assert done.exit_code == 2
    assert done.output == "Error: 'nodir' is neither a URI nor an existing file or directory.\n"


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [("models:/churn", "models:/churn@champion"), ("models:/nothere/1", "MLFLOW_TRACKING_URI")],
)
def test_the_command_reports_an_unknown_model(uri, remedy, constraints, environment, tracking_uri):
    """For a model that MLflow does not know, the command exits with 2 and prints the remedy."""
    environment.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    done = CliRunner().invoke(main, ["constraints", uri, str(constraints)])
    assert done.exit_code == 2
    assert remedy in done.output


@pytest.mark.parametrize(
    ("loaded", "pickles", "refused"),
    [
        pytest.param(
            "model.pkl", {"a.pkl": BY_NUMPY_2, "model.pkl": GENERATOR}, True, id="behind-another"
        ),
        pytest.param(
            "python_model.pkl",
            {"model.pkl": GENERATOR, "python_model.pkl": BY_NUMPY_1},
            False,
            id="part-of-a-name",
        ),
        pytest.param("model.pkl", {"model.pkl": _PCG64}, True, id="generator-without-arrays"),
    ],
)
@pytest.mark.parametrize("installed", ["1.26.4"], indirect=True)
def test_the_pickles_that_mlflow_loads_decide(  # noqa: PLR0917
    model, installed, caplog, loaded, pickles, refused
):
    """A model is refused because of a pickle that its flavor loads, and of no other."""
    for name, content in pickles.items():
        (model / name).write_bytes(b"\x80" + content + b".")
    (model / "MLmodel").write_text(f"flavors:\n  f: {{pickled_model: {loaded}}}\n")
    files = files_below(model)
    parts = check_model(model, files).loaded
    if refused:
        with pytest.raises(MlflowException, match=rf"/{loaded} was .*, which numpy {installed} "):
            check_numpy(files, parts)
    else:
        check_numpy(files, parts)
    assert ("/model.pkl was written with numpy 2" in caplog.text) == (not refused)
