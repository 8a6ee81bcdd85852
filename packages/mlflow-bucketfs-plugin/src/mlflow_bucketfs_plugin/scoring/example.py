"""Infer the outputs of a model from its input example, if its signature has none."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_plugin.scoring import ScriptError

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin.scoring.model import StoredModel


def predicted_schema(model: StoredModel) -> list[dict[str, Any]]:
    """Load a model on this machine, score its input example, and return the outputs' schema.

    Args:
        model: the model, with all its files downloaded.

    Raises:
        ScriptError: there is no example, or scoring it fails.
    """
    if not model.mlmodel.get("saved_input_example_info"):
        raise ScriptError(
            "--score-example: the model was logged without input_example. Declare its outputs with "
            "--output NAME=TYPE, once for each column."
        )
    try:
        # only UDFs and this function need these packages
        import mlflow.pyfunc  # noqa: PLC0415
        from mlflow.models import Model, infer_signature  # noqa: PLC0415

        description = Model.load(str(model.directory))
        example = description.load_input_example(str(model.directory))
        params = description.load_input_example_params(str(model.directory))
        loaded = mlflow.pyfunc.load_model(str(model.directory))
        predicted = loaded.predict(example, params=params)
        with warnings.catch_warnings():
            # MLflow warns that integers cannot be missing, which is about inputs
            warnings.simplefilter("ignore")
            schema = infer_signature(model_output=predicted).outputs
    except Exception as error:  # a model's own code can raise any exception
        raise ScriptError(
            f"--score-example: the model cannot score its input example here: "
            f"{type(error).__name__}: {error}"
        ) from error
    if schema is None:
        raise ScriptError("--score-example: MLflow cannot infer the type of the predictions.")
    return [dict(spec) for spec in schema.to_dict()]
