"""Decide whether a UDF can load a model without MLflow and predict exactly the same.

For most scikit-learn models, ``mlflow.pyfunc`` enforces the signature, which the script does
itself, and calls one method of the estimator. Importing MLflow takes longer than all other steps
together. Each rule here excludes models for which ``mlflow.pyfunc`` does more.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.spec import DirectLoader, MlflowLoader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_bucketfs_plugin.scoring.model import StoredModel
    from mlflow_bucketfs_plugin.scoring.signature import Parameters

_FORMATS = ("skops", "pickle", "cloudpickle")
_METHODS = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba")
# Enough for the start of a pickle, which names the classes, without reading millions of values
_MOST_OPCODES = 200_000
# scikit-learn models can be logged with these methods, but no script can call them
_UNUSABLE = {
    "decision_function": "MLflow logs it, but cannot load it",
    "score": "it needs labels",
}


def choose_loader(
    model: StoredModel, wanted: str, *, parameters: Parameters, has_params: bool
) -> DirectLoader | MlflowLoader:
    """Choose how the script loads the model.

    Args:
        model: the model.
        wanted: ``auto``, ``mlflow`` or ``direct``.
        parameters: the script's parameters.
        has_params: whether the script passes params to ``predict``.

    Raises:
        ScriptError: ``direct`` is wanted but may predict differently, or the model cannot be
            scored by any loader.
    """
    predict_fn = model.pyfunc.get("predict_fn")
    if isinstance(predict_fn, str) and (reason := _UNUSABLE.get(predict_fn)):
        raise ScriptError(
            f"The model was logged with pyfunc_predict_fn={predict_fn!r}, which no script can "
            f"call: {reason}. Log it with one of {', '.join(_METHODS)}."
        )
    if has_params and _is_sklearn(model):
        raise ScriptError(
            "--param: scikit-learn models take no params; MLflow would ignore them. Log the model "
            "as a mlflow.pyfunc.PythonModel that uses them."
        )
    if wanted == "mlflow":
        return MlflowLoader()
    obstacles = list(_obstacles(model, parameters))
    if not obstacles:
        return _direct(model)
    if wanted == "direct":
        raise ScriptError(
            f"--loader direct: the model can be loaded by MLflow only, because {obstacles[0]}."
        )
    return MlflowLoader()


def _is_sklearn(model: StoredModel) -> bool:
    return model.pyfunc.get("loader_module") == "mlflow.sklearn"


def _obstacles(model: StoredModel, parameters: Parameters) -> Iterator[str]:
    pyfunc, sklearn = model.pyfunc, model.flavor("sklearn")
    if not _is_sklearn(model) or sklearn is None:
        yield "it is not a scikit-learn model"
        return
    metadata = model.mlmodel.get("metadata")
    serialization = sklearn.get("serialization_format", "pickle")
    predict_fn = pyfunc.get("predict_fn", "predict")
    rules = {
        "it has its own code (code_paths)": pyfunc.get("code") or sklearn.get("code"),
        "it has its own data": pyfunc.get("data"),
        "it has a configuration (model_config)": pyfunc.get("config"),
        "it is a script (model_code_path)": pyfunc.get("model_code_path"),
        f"its predict_fn is {predict_fn!r}": predict_fn not in _METHODS,
        f"its serialization format is {serialization!r}": serialization not in _FORMATS,
        "its MLmodel names no file of the model": str(pyfunc.get("model_path")) not in model.keys,
        "its signature comes from type hints": model.mlmodel.get("is_signature_from_type_hint")
        or model.mlmodel.get("type_hint_from_example"),
        "its signature has an Array, Object or Map, which MLflow checks": any(
            feature.type == "json" for feature in parameters.inputs
        ),
        "its signature names its tensor": parameters.tensor and parameters.tensor.name,
        "it is an external model": isinstance(metadata, dict)
        and metadata.get("mlflow.model.isExternal"),
    }
    yield from (obstacle for obstacle, applies in rules.items() if applies)


def _direct(model: StoredModel) -> DirectLoader:
    pyfunc, sklearn = model.pyfunc, model.flavor("sklearn") or {}
    serialization = sklearn.get("serialization_format", "pickle")
    return DirectLoader(
        format=serialization,
        file=pyfunc["model_path"],
        mlmodel=model.mlmodel_digest,
        trusted=tuple(sklearn.get("skops_trusted_types") or ()),
        predict_fn=pyfunc.get("predict_fn", "predict"),
        modules=_modules(model.directory / pyfunc["model_path"], serialization),
    )


def _modules(file: Path, serialization: str) -> tuple[str, ...]:
    """Return the modules of scikit-learn that a model's file names, to import them early.

    The file is not loaded. If it was not downloaded or is damaged, no modules are returned.
    """
    try:
        named = _skops_modules(file) if serialization == "skops" else _pickled_modules(file)
        return tuple(sorted({name for name in named if name.split(".")[0] == "sklearn"}))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ()


def _skops_modules(file: Path) -> set[str]:
    found: set[str] = set()

    def note(node: dict[str, Any]) -> dict[str, Any]:
        if isinstance(module := node.get("__module__"), str):
            found.add(module)
        return node

    with zipfile.ZipFile(file) as archive:
        json.loads(archive.read("schema.json"), object_hook=note)
    return found


def _pickled_modules(file: Path) -> set[str]:
    found: set[str] = set()
    strings: deque[object] = deque(maxlen=2)  # STACK_GLOBAL takes module and name from the stack
    memo: dict[int, object] = {}
    last: object = None
    with file.open("rb") as content:
        for opcode, argument, _ in islice(pickletools.genops(content), _MOST_OPCODES):
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = last
            elif opcode.name in {"BINPUT", "LONG_BINPUT"}:
                memo[int(argument or 0)] = last
            elif opcode.name == "GLOBAL":
                found.add(str(argument).partition(" ")[0])
            elif opcode.name == "STACK_GLOBAL":
                found.add(str(strings[0]))
            else:
                is_get = opcode.name in {"BINGET", "LONG_BINGET"}
                last = memo.get(int(argument or 0)) if is_get else argument
                if isinstance(last, str):
                    strings.append(last)
    return found
