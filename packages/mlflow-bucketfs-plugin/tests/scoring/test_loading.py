"""Loading in a UDF: verified, once per process, and only the model that the script was made for."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow_bucketfs_plugin.scoring.spec import (
    DirectLoader,
    Input,
    Key,
    MlflowLoader,
    Output,
    ScoringSpec,
    udf_source,
)
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

rng = np.random.default_rng(0)
FEATURES = pd.DataFrame({"x": rng.normal(size=300), "y": rng.normal(size=300)})
LABELS = (FEATURES.x * FEATURES.y > 0).astype("int64")
FRAME = pd.DataFrame({"ID": range(300), "X": FEATURES.x, "Y": FEATURES.y})
SOME = FRAME.head(2)
SKOPS = pytest.param(
    "skops",
    marks=pytest.mark.skipif(
        not hasattr(mlflow.sklearn, "SERIALIZATION_FORMAT_SKOPS"),
        reason="this MLflow cannot save as skops",
    ),
)
FORMATS = [SKOPS, "pickle", "cloudpickle"]


def save(folder, model, features=FEATURES, **options):
    """Save a scikit-learn model with MLflow, and return its folder."""
    signature = infer_signature(features, LABELS)
    options = {"signature": signature, "pip_requirements": ["scikit-learn"], **options}
    mlflow.sklearn.save_model(model, folder, **options)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a small model in each format; a test must not change them."""
    root = tmp_path_factory.mktemp("models")
    model = LogisticRegression().fit(FEATURES, LABELS)
    forms = mlflow.sklearn.SUPPORTED_SERIALIZATION_FORMATS
    return {form: save(root / form, model, serialization_format=form) for form in forms}


@pytest.fixture
def model(models, tmp_path):
    """Return a copy of a model, in a folder like that of a mounted bucket."""
    folder = tmp_path / "bfsdefault" / "default" / "m"
    return Path(shutil.copytree(models["pickle"], folder))


def direct(folder, digests, **options):
    """Return the direct loader for a scikit-learn model."""
    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    return DirectLoader(
        format=flavors["sklearn"]["serialization_format"],
        file=flavors["python_function"]["model_path"],
        mlmodel=digests(folder)["MLmodel"],
        trusted=tuple(flavors["sklearn"].get("skops_trusted_types") or ()),
        predict_fn=flavors["python_function"].get("predict_fn", "predict"),
        **options,
    )


PREDICTION = (Output(column="P", type="long"),)
PROBABILITIES = (Output(column="P0", type="double"), Output(column="P1", type="double"))


@pytest.fixture
def spec_of(make_spec, digests):
    """Return a function that makes the spec for a model: ``spec_of(folder, kind of loader)``."""
    inputs = [Input(column=c, feature=c.lower(), type="double") for c in ("X", "Y")]

    def spec_of(folder, kind="direct", outputs=PREDICTION, **options):
        loader = direct(folder, digests) if kind == "direct" else MlflowLoader()
        given = {"model": str(folder), "files": digests(folder), "keys": (Key(column="ID"),)}
        return make_spec(inputs, outputs, loader=loader, **given | options)

    return spec_of


@pytest.mark.parametrize("predict_fn", ["predict", "predict_proba"])
@pytest.mark.parametrize("form", FORMATS)
def test_both_loaders_predict_the_bits_of_pyfunc(udf, spec_of, tmp_path, form, predict_fn):
    """Predictions of both loaders are those of pyfunc, to the bit, for all formats and methods."""
    forest = RandomForestClassifier(n_estimators=20, random_state=0).fit(FEATURES, LABELS)
    options = {"serialization_format": form, "pyfunc_predict_fn": predict_fn}
    if form == "skops":
        options["skops_trusted_types"] = ["sklearn.tree._tree.Tree"]
    folder = save(tmp_path / "m", forest, **options)
    wanted = mlflow.pyfunc.load_model(folder).predict(FEATURES)
    outputs = PROBABILITIES if wanted.ndim == 2 else PREDICTION
    for kind in "direct", "mlflow":
        rows = udf(spec_of(folder, kind, outputs), FRAME)
        assert [row[0] for row in rows] == list(range(300))
        predicted = np.array([row[1:] for row in rows], dtype=wanted.dtype)
        assert predicted.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", ["direct", "mlflow"])
def test_a_pipeline_gets_text_with_nulls(udf, make_spec, digests, tmp_path, kind):
    """A text column with NULLs is passed to an encoder as by MLflow."""
    text = [None if i % 7 == 0 else "ab"[i % 2] for i in range(300)]
    features = pd.DataFrame({"x": FEATURES.x, "c": text})
    encoder = make_column_transformer((OneHotEncoder(), ["c"]), remainder="passthrough")
    pipeline = make_pipeline(encoder, LogisticRegression()).fit(features, LABELS)
    schema = Schema([ColSpec("double", "x"), ColSpec("string", "c")])
    options = {"serialization_format": "cloudpickle", "pyfunc_predict_fn": "predict_proba"}
    folder = save(tmp_path / "m", pipeline, signature=ModelSignature(schema), **options)
    wanted = mlflow.pyfunc.load_model(folder).predict(features)
    inputs = [
        Input(column="X", feature="x", type="double"),
        Input(column="C", feature="c", type="string"),
    ]
    loader = direct(folder, digests) if kind == "direct" else MlflowLoader()
    spec = make_spec(inputs, PROBABILITIES, model=str(folder), files=digests(folder), loader=loader)
    assert np.array(udf(spec, features)).astype(float).tobytes() == wanted.tobytes()


def test_a_process_loads_once_and_scores_in_batches(udf, spec_of, models):
    """A process loads the model once for several groups, and scores batches of the set size."""
    loads = []
    spec = spec_of(models["pickle"], batch_rows=100)

    def load_verified(original, folder):
        loads.append(folder)
        return original(folder)

    rows = udf(spec, FRAME, FRAME.head(101), load_verified=load_verified)
    assert [row[0] for row in rows] == [*range(300), *range(101)]
    assert udf.batches == [[100, 100, 100], [100, 1]]
    assert loads == [str(models["pickle"])]


def test_the_row_in_a_message_is_counted_in_the_group(udf, spec_of, models):
    """The row number in a message includes the rows of earlier batches."""
    frame = FRAME.astype({"X": object})
    frame.loc[250, "X"] = "?"
    with pytest.raises(Exception, match=r"column X: '\?' in row 251 \(ID 250\) is not a number"):
        udf(spec_of(models["pickle"], batch_rows=100), frame)


PROCESS = """
import gc, os, sys
import pandas as pd
source = open(sys.argv[1], encoding="utf-8").read()
space = {"__name__": "builtins"}
exec(compile(source, "udf", "exec"), space)
class Context:
    frames = [pd.DataFrame({"ID": [2**53 + 1], "X": [0.5], "Y": [0.5]}), None]
    get_dataframe = lambda self, num_rows: self.frames.pop(0)
    emit = lambda self, frame: print(frame.values.tolist())
space["run"](Context())
threads = os.environ["OMP_NUM_THREADS"] + os.environ["MKL_NUM_THREADS"]
print("mlflow" in sys.modules, gc.isenabled(), threads)
"""


@pytest.mark.parametrize("form", [SKOPS, "pickle"])
def test_a_new_process(spec_of, models, tmp_path, form):
    """The direct loader does not import MLflow, and sets unset numbers of BLAS threads to 1."""
    script = tmp_path / "udf.py"
    script.write_text(udf_source(spec_of(models[form])), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment["MKL_NUM_THREADS"] = "2"
    command = [sys.executable, "-c", PROCESS, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[[9007199254740993, 0]]\nFalse True 12\n"


def test_the_mount_root_of_the_environment_is_used(udf, spec_of, model, tmp_path, monkeypatch):
    """``EXA_BUCKETFS_MOUNT_ROOT`` replaces ``/buckets`` in the model's path."""
    spec = spec_of(model)
    literal = ScoringSpec(**vars(spec) | {"model": "/buckets/bfsdefault/default/m"})
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", f"{tmp_path}/")
    assert udf(literal, SOME) == udf(spec, SOME)


@pytest.mark.parametrize("kind", ["direct", "mlflow"])
@pytest.mark.parametrize("files", [None, {"MLmodel": "00"}])
def test_a_missing_model_names_its_path(udf, spec_of, tmp_path, monkeypatch, models, kind, files):  # noqa: PLR0917
    """The error for a missing model has its path and a remedy."""
    monkeypatch.setenv("EXA_BUCKETFS_MOUNT_ROOT", str(tmp_path))
    changes = {"model": "/buckets/bfsdefault/default/m", "files": files}
    spec = ScoringSpec(**vars(spec_of(models["pickle"], kind)) | changes)
    with pytest.raises(Exception, match="does not exist") as error:
        udf(spec, SOME)
    assert str(error.value) == (
        f"{tmp_path}/bfsdefault/default/m/MLmodel does not exist: a fresh upload may not have "
        "arrived at this node yet; if models:/m/1 was moved or deleted, make the script again"
    )


def change(path):
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by_pipe(path):
    """Replace a file by a named pipe, which would block a reader."""
    path.unlink()
    os.mkfifo(path)


ATTACKS = {
    "model.pkl is not the one that this script was made for": lambda m: change(m / "model.pkl"),
    "MLmodel is not the one that this script was made for": lambda m: change(m / "MLmodel"),
    "conda.yaml is not the one that this script": lambda m: change(m / "conda.yaml"),
    "model.pkl does not exist": lambda m: (m / "model.pkl").unlink(),
    "conda.yaml does not exist": lambda m: (m / "conda.yaml").unlink(),
    "x.py was added to the model": lambda m: (m / "x.py").touch(),
    "code was added to the model": lambda m: (m / "code").symlink_to(m.parent),
    "conda.yaml is not a regular file": lambda m: replace_by_pipe(m / "conda.yaml"),
}


@pytest.mark.parametrize("kind", ["direct", "mlflow"])
@pytest.mark.parametrize("problem", ATTACKS)
def test_a_changed_model_does_not_run(udf, spec_of, model, kind, problem):
    """A model with a changed, missing or added file is not loaded."""
    spec = spec_of(model, kind)
    ATTACKS[problem](model)
    with pytest.raises(Exception, match=r"does not exist|make the script again") as error:
        udf(spec, SOME)
    assert str(error.value).startswith(f"{model}/{problem}")


class Bomb:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        """Create the folder."""
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(("kind", "has_run"), [("direct", False), ("mlflow", True)])
def test_a_model_replaced_after_its_verification(udf, spec_of, model, tmp_path, kind, has_run):  # noqa: PLR0917
    """A replaced file is an error; MLflow has loaded it before, and the direct loader has not."""
    replacement, exploded = tmp_path / "replacement", tmp_path / "exploded"
    replacement.write_bytes(pickle.dumps(Bomb(exploded)))

    def verify(original, folder):
        verified = original(folder)
        replacement.replace(f"{folder}/model.pkl")
        return verified

    with pytest.raises(Exception, match="was changed while it was loaded; run the query again"):
        udf(spec_of(model, kind), SOME, verify=verify)
    assert exploded.exists() == has_run


def test_a_file_added_while_loading_is_reported(udf, spec_of, model):
    """A file that is added while MLflow loads the model is an error."""

    def verify(original, folder):
        verified = original(folder)
        Path(folder, "added.py").touch()
        return verified

    with pytest.raises(Exception, match="was changed while it was loaded; run the query again"):
        udf(spec_of(model, "mlflow"), SOME, verify=verify)


def test_without_digests_the_direct_loader_verifies_the_mlmodel(udf, spec_of, model):
    """Without digests, the direct loader still refuses a changed ``MLmodel``, but no other file."""
    spec = spec_of(model, files=None)
    (model / "requirements.txt").write_text("anything")
    assert len(udf(spec, SOME)) == 2
    change(model / "MLmodel")
    with pytest.raises(Exception, match="MLmodel is not the one that this script was made for"):
        udf(spec, SOME)


def test_without_digests_mlflow_loads_changed_files(udf, spec_of, model):
    """Without digests, MLflow loads a new upload to the same folder without a new script."""
    spec = spec_of(model, "mlflow", files=None)
    (model / "requirements.txt").write_text("anything")
    assert len(udf(spec, SOME)) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_mlflow_allow_pickle_deserialization_is_respected(udf, spec_of, models, monkeypatch, form):
    """MLflow's setting against deserialization applies to the direct loader, for all formats."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(Exception, match="is false in this container"):
        udf(spec_of(models[form]), SOME)


class Unloadable:
    """A pickle that fails to load with a given error."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        """Raise the error."""
        return (exec, (f"raise {self.error}",))


PACKAGES = "the script-language container needs the packages that the model was trained with"
VERSIONS = "train it with the package versions of the script-language container"


@pytest.mark.parametrize("kind", ["direct", "mlflow"])
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("ModuleNotFoundError('No module named x')", PACKAGES),
        ("AttributeError('no Tree\\n\\nmore')", VERSIONS),
        ("MemoryError('Unable to allocate')", "the model needs more memory than a UDF has"),
        ("ValueError('x' * 9999)", VERSIONS),
    ],
)
def test_a_model_that_fails_to_load_is_one_sentence(udf, spec_of, model, kind, error, remedy):  # noqa: PLR0917
    """The error has type, first line and remedy in 300 characters, without a traceback."""
    (model / "model.pkl").write_bytes(pickle.dumps(Unloadable(error)))
    with pytest.raises(Exception, match="cannot load models:/m/1: ") as raised:
        udf(spec_of(model, kind), SOME)
    name, text = error.split("(", 1)
    text = "x" * 50 if "*" in text else text.split("'")[1].split("\\n")[0]
    assert str(raised.value).startswith(f"cannot load models:/m/1: {name}: {text}")
    assert str(raised.value).endswith(f"; {remedy}")
    assert len(str(raised.value)) <= 300
    assert type(raised.value).__name__ == "ScoringError"
    assert raised.value.__suppress_context__
    assert sys.tracebacklimit == 0


class Scaled(mlflow.pyfunc.PythonModel):
    """A model that returns its input, scaled by a parameter."""

    def predict(self, context, model_input: pd.DataFrame, params=None):  # noqa: ARG002
        """Scale both columns."""
        return model_input * params["factor"]


def test_parameters_reach_the_model(udf, spec_of, tmp_path):
    """The script's params override the defaults of the signature."""
    params = ParamSchema([ParamSpec("factor", "double", 10.0)])
    signature = ModelSignature(inputs=infer_signature(FEATURES).inputs, params=params)
    options = {"signature": signature, "pip_requirements": ["mlflow"]}
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Scaled(), **options)
    outputs = [Output(column=c, type="double", field=c.lower()) for c in ("Y", "X")]
    for given, factor in ({}, 10.0), ({"factor": 2.0}, 2.0):
        rows = udf(spec_of(tmp_path / "m", "mlflow", outputs, params=given), SOME)
        assert rows == [(i, FEATURES.y[i] * factor, FEATURES.x[i] * factor) for i in range(2)]


def test_a_model_may_have_code(udf, spec_of, tmp_path, monkeypatch):
    """A model with ``code_paths`` is scored twice: no byte code is written into its folder."""
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "__init__.py").write_text("FACTOR = 3")
    monkeypatch.syspath_prepend(tmp_path)

    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: pd.DataFrame, params=None):  # noqa: ARG002
            from brought import FACTOR  # noqa: PLC0415

            return model_input["x"] * FACTOR

    options = {"signature": infer_signature(FEATURES), "pip_requirements": ["mlflow"]}
    options["code_paths"] = [str(tmp_path / "brought")]
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Model(), **options)
    spec = spec_of(tmp_path / "m", "mlflow", [Output(column="P", type="double")])
    sys.modules.pop("brought", None)
    for _ in range(2):
        assert udf(spec, SOME) == [(i, FEATURES.x[i] * 3) for i in range(2)]
