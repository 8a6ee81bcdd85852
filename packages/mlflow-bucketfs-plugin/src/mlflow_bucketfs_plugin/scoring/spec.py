"""The description of a model inside its scoring script, as a JSON literal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
"""Version of the JSON; :mod:`mlflow_bucketfs_plugin.scoring.udf_code` reads no other."""

ValueType = Literal[
    "boolean", "integer", "long", "uint64", "float", "double", "string", "datetime", "json"
]
"""MLflow's names of column types; ``json`` is its Array, Object or Map as text."""

_PLACEHOLDER = 'r"""{}"""'


@dataclass(frozen=True, kw_only=True)
class Key:
    """A parameter that is emitted unchanged.

    Attributes:
        column: name of the parameter in the script.
        whole: whether it is a DECIMAL without decimals. With 18 digits or fewer it arrives as a
            float in a batch that has a NULL; it is emitted as a whole number again, or refused.
    """

    column: str
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class Input:
    """A parameter that is a feature of the model.

    Attributes:
        column: name of the parameter in the script.
        feature: name in the model's signature; None in a signature without names, where the model
            gets the position among the inputs instead.
        type: type in the signature.
        required: whether the signature requires it. MLflow accepts NULL in a required column of
            type boolean, float, double, string and datetime, but never in integer and long.
        iso: whether it is a datetime that arrives as text in ISO format.
        null_as_empty: whether NULL becomes the empty string.
        schema: for ``json`` the type as MLflow writes it, such as
            ``{"type": "array", "items": {"type": "double"}}``. Needed because JSON does
            not distinguish 1 and 1.0.
    """

    column: str
    feature: str | None
    type: ValueType
    required: bool = True
    iso: bool = False
    null_as_empty: bool = False
    schema: Mapping[str, object] | None = None


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A signature of one tensor; the inputs are its columns.

    Attributes:
        dtype: NumPy's name, such as ``float32``.
        columns: None for the shape ``(-1,)``, n for ``(-1, n)``.
        name: its name in the signature; with a name, the model gets a dictionary.
    """

    dtype: str
    columns: int | None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """A column that the model predicts.

    Attributes:
        column: name of the emitted column.
        type: type of the emitted values: whole numbers for integer, long and uint64, text in JSON
            for ``json``, a DECIMAL with decimals for ``decimal``.
        scale: decimals of a ``decimal``.
        field: name of the column in a data frame or dictionary that the model returns; None to
            select it by position.
    """

    column: str
    type: ValueType | Literal["decimal"]
    scale: int = 0
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class MlflowLoader:
    """The loader for any model: ``mlflow.pyfunc``."""

    kind: Literal["mlflow"] = "mlflow"


@dataclass(frozen=True, kw_only=True)
class DirectLoader:
    """The loader for a scikit-learn estimator without MLflow.

    Attributes:
        format: serialization format of the estimator.
        file: path of the estimator's file in the model's folder.
        mlmodel: SHA-256 of the ``MLmodel`` from which these values were read, in hexadecimal. It
            is verified even if ``files`` is None.
        trusted: types that skops may construct.
        predict_fn: the method to call.
        modules: modules that the model needs, imported while its files are verified. Each one
            must exist in the container. Other modules are imported when the model is loaded.
    """

    format: Literal["skops", "pickle", "cloudpickle"]
    file: str
    mlmodel: str
    trusted: tuple[str, ...] = ()
    predict_fn: str = "predict"
    modules: tuple[str, ...] = ()
    kind: Literal["direct"] = "direct"


@dataclass(frozen=True, kw_only=True)
class ScoringSpec:
    """The description of a model that the code of a scoring script reads.

    Attributes:
        model: the model's folder as a UDF sees it, such as
            ``/buckets/bfsdefault/default/models/m-1/artifacts``. At run time, the environment
            variable ``EXA_BUCKETFS_MOUNT_ROOT`` replaces ``/buckets``.
        origin: the model's URI with its version, for messages.
        keys: the leading parameters.
        inputs: the parameters after them, in the signature's order.
        outputs: the columns that are emitted after the keys.
        loader: how the model is loaded.
        files: SHA-256 of each file in the model's folder by its relative path, in hexadecimal;
            None if they are not verified.
        tensor: set if the signature is one tensor.
        params: MLflow's parameters for ``predict``.
        batch_rows: rows that are scored at a time.
        on_error: ``fail`` ends the query if a row cannot be scored; ``column`` emits the reason in
            one more column.
    """

    model: str
    origin: str
    keys: tuple[Key, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    loader: MlflowLoader | DirectLoader
    files: Mapping[str, str] | None
    tensor: Tensor | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    batch_rows: int = 10_000
    on_error: Literal["fail", "column"] = "fail"

    def to_json(self) -> str:
        """Return the description as readable JSON that is valid within ``r\"\"\"…\"\"\"``.

        No line begins with ``%``, which Exasol reads as an option, or is a lone ``/``, which ends a
        script.
        """
        members = ({"format": FORMAT} | asdict(self)).items()
        text = ",\n".join(f" {_json(name)}: {_one_per_line(value)}" for name, value in members)
        # escape line separators and other characters that an editor or a client may interpret
        visible = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
        return "{\n" + "".join(visible) + "\n}"


def udf_source(spec: ScoringSpec) -> str:
    """Return the Python code of a scoring script."""
    code = resources(__package__).joinpath("udf_code.py").read_text(encoding="utf-8")
    before, placeholder, after = code.partition(_PLACEHOLDER)
    if not placeholder:
        raise AssertionError(f"udf_code.py has no {_PLACEHOLDER}")
    return f'{before}r"""{spec.to_json()}"""{after}'


def _one_per_line(value: object) -> str:
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join(f"  {_json(item)}" for item in value) + "\n ]"
    if isinstance(value, dict) and value:
        members = ",\n".join(f"  {_json(name)}: {_json(item)}" for name, item in value.items())
        return "{\n" + members + "\n }"
    return _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
