"""Convert a model's signature to a script's parameters and outputs, and check its params."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from mlflow_bucketfs_plugin.mlflow_errors import enumerated
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.names import (
    MAX_CHARACTERS,
    check_name,
    parse_identifier,
    read_identifier,
    rest_remedy,
)
from mlflow_bucketfs_plugin.scoring.spec import Input, Key, Output, Tensor, ValueType
from mlflow_bucketfs_plugin.scoring.sql_types import (
    DEFAULTS,
    EXACT_ID,
    SqlType,
    check_input_type,
    emitted_as,
    parse_sql_type,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    Schema = Sequence[Mapping[str, Any]]

MOST_TENSOR_COLUMNS = 1_000
_NESTED = ("array", "object", "map")
_IN_JSON = {"boolean", "integer", "long", "float", "double", "string", "datetime"}
_DTYPES: dict[str, ValueType] = {
    "bool": "boolean",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "integer"),
    **dict.fromkeys(("int64", "uint32"), "long"),
    "uint64": "uint64",
    **dict.fromkeys(("float16", "float32"), "float"),
    "float64": "double",
    "str": "string",
    "datetime64[ns]": "datetime",
}
_INT32 = 1 << 31
_INT64 = 1 << 63


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A feature or an output, before it is assigned to a column.

    Attributes:
        label: its name in options, and the default name of its column.
        name: its name in the signature.
        type: the type in the signature; ``None`` if unknown.
        required: whether the signature requires it.
        schema: the type of an Array, Object or Map, as MLflow writes it.
    """

    label: str
    name: str | None
    type: ValueType | None
    required: bool = True
    schema: Mapping[str, object] | None = None


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of a script.

    Attributes:
        keys: parameters that are emitted unchanged.
        inputs: features, in the signature's order.
        tensor: set if the signature is one tensor.
        sql_types: types of the keys and inputs, in this order.
    """

    keys: tuple[Key, ...]
    inputs: tuple[Input, ...]
    tensor: Tensor | None
    sql_types: tuple[SqlType, ...]

    @property
    def names(self) -> list[str]:
        """Names of all parameters."""
        return [key.column for key in self.keys] + [feature.column for feature in self.inputs]


def parse_keys(keys: Sequence[str]) -> list[tuple[Key, SqlType]]:
    """Parse keys, each ``COLUMN [TYPE]``.

    Raises:
        ScriptError: a key is malformed, or two have the same name.
    """
    parsed: dict[str, tuple[Key, SqlType]] = {}
    for text in keys:
        name, rest = read_identifier(text, "--key")
        sql = EXACT_ID
        if rest.strip():
            sql = parse_sql_type(rest, f"--key {name}", remedy=rest_remedy(rest))
        if name in parsed:
            raise ScriptError(f"--key: {name!r} is given twice.")
        parsed[name] = Key(column=name, whole=sql.is_whole), sql
    return list(parsed.values())


def parameters(
    schema: Schema | None,
    *,
    keys: Sequence[str] = (),
    types: Mapping[str, str],
    renames: Mapping[str, str],
    null_as_empty: Collection[str] = (),
) -> Parameters:
    """Make a script's parameters from the inputs of a signature.

    Args:
        schema: the inputs in the ``MLmodel``.
        keys: see :func:`parse_keys`.
        types: columns' types by feature.
        renames: parameters' names by feature.
        null_as_empty: text features for which NULL is the empty string.

    Raises:
        ScriptError: a feature's type has no SQL type, names clash, or an option is invalid.
    """
    if not schema:
        raise ScriptError(
            "The model has no signature with inputs, so its parameters are not known. Log it with "
            "signature=mlflow.models.infer_signature(inputs, predictions), or add one: "
            "mlflow.models.set_signature(model_uri, signature)."
        )
    slots, tensor = _input_slots(schema)
    labels = [slot.label for slot in slots]
    _check_known(types, labels, "--type", "feature")
    _check_known(renames, labels, "--rename", "feature")
    _check_known(null_as_empty, labels, "--null-as-empty", "feature")
    parsed_keys = parse_keys(keys)
    inputs, sql_types = [], [sql for _, sql in parsed_keys]
    for slot in slots:
        if slot.type is None:
            raise ScriptError(
                f"The signature has an input tensor of {tensor and tensor.dtype}, which has no "
                "matching SQL type."
            )
        sql = DEFAULTS[slot.type]
        if slot.label in types:
            what = f"--type {slot.label}"
            sql = check_input_type(slot.type, parse_sql_type(types[slot.label], what), what)
        if slot.label in null_as_empty and slot.type != "string":
            raise ScriptError(
                f"--null-as-empty: {slot.label!r} is {slot.type} in the signature, not string."
            )
        inputs.append(
            Input(
                column=_parameter_name(slot.label, renames.get(slot.label)),
                feature=slot.name,
                type=slot.type,
                required=slot.required,
                iso=slot.type == "datetime" and sql.kind == "VARCHAR",
                null_as_empty=slot.label in null_as_empty,
                schema=slot.schema,
            )
        )
        sql_types.append(sql)
    made = Parameters(
        keys=tuple(key for key, _ in parsed_keys),
        inputs=tuple(inputs),
        tensor=tensor,
        sql_types=tuple(sql_types),
    )
    if twice := _first_twice(made.names):
        raise ScriptError(
            f"Two parameters would be called {twice!r}. Rename the parameter of a feature: "
            f"--rename {twice}=OTHER_NAME"
        )
    return made


def _parameter_name(label: str, renamed: str | None) -> str:
    if renamed is not None:
        return parse_identifier(renamed, f"--rename {label}")
    if not label or len(label) > MAX_CHARACTERS:
        raise ScriptError(
            f"The feature {label!r} has {len(label)} characters, and a parameter 1 to "
            f"{MAX_CHARACTERS}. Give it another name: --rename 'FEATURE=PARAMETER'"
        )
    # the name need not be the feature's, because the script's code reads columns by position
    return check_name(label.replace(".", "_"), "The signature")


def _input_slots(schema: Schema) -> tuple[list[_Slot], Tensor | None]:
    if schema[0].get("type") == "tensor":
        if len(schema) > 1:
            raise ScriptError(
                "The signature has several input tensors, which cannot come from columns. Wrap the "
                "model in a mlflow.pyfunc.PythonModel with a signature of columns."
            )
        name, dtype, columns = _tensor(schema[0], "input")
        slots = _tensor_slots("FEATURE", name, _DTYPES.get(dtype), columns)
        return slots, Tensor(dtype=dtype, columns=columns, name=name)
    return _column_slots("FEATURE", schema, "input"), None


def _tensor(spec: Mapping[str, Any], what: str) -> tuple[str | None, str, int | None]:
    try:
        dtype, shape = str(spec["tensor-spec"]["dtype"]), list(spec["tensor-spec"]["shape"])
    except (KeyError, TypeError) as error:
        raise ScriptError(f"The signature's {what} tensor is damaged: {spec}") from error
    if shape == [-1]:
        return spec.get("name"), dtype, None
    if len(shape) == 2 and shape[0] == -1 and 1 <= shape[1] <= MOST_TENSOR_COLUMNS:  # noqa: PLR2004
        return spec.get("name"), dtype, shape[1]
    raise ScriptError(
        f"The signature has an {what} tensor of shape {tuple(shape)}. Supported shapes are (-1,) "
        f"and (-1, n) with n up to {MOST_TENSOR_COLUMNS:,}."
    )


def _tensor_slots(
    default: str, name: str | None, value: ValueType | None, columns: int | None
) -> list[_Slot]:
    label = name or default
    if columns is None:
        return [_Slot(label=label, name=None, type=value)]
    return [_Slot(label=f"{label}_{i}", name=None, type=value) for i in range(columns)]


def _column_slots(default: str, schema: Schema, what: str) -> list[_Slot]:
    slots = []
    for position, spec in enumerate(schema):
        name = spec.get("name")
        label = name if name is not None else default
        if name is None and (len(schema) > 1 or what == "input"):
            label = f"{default}_{position}"
        value, nested = _value_type(spec, f"The {what} {label!r}")
        slots.append(
            _Slot(
                label=label,
                name=name,
                type=value,
                required=spec.get("required", True) is not False,
                schema=nested,
            )
        )
    return slots


def _value_type(
    spec: Mapping[str, Any], what: str
) -> tuple[ValueType, Mapping[str, object] | None]:
    kind = spec.get("type")
    if kind in _NESTED:
        if unsupported := _scalars(spec) - _IN_JSON:
            raise ScriptError(
                f"{what} has {', '.join(sorted(unsupported))} within {kind} in the signature, "
                "which JSON does not have."
            )
        return "json", {k: v for k, v in spec.items() if k not in {"name", "required"}}
    if kind in get_args(ValueType) and kind not in {"uint64", "json"}:
        return cast("ValueType", kind), None
    raise ScriptError(f"{what} is {kind} in the signature, which SQL does not have.")


def _scalars(spec: Mapping[str, Any]) -> set[str]:
    """Return the scalar types within an Array, Object or Map."""
    parts = [spec.get("items"), spec.get("values"), *(spec.get("properties") or {}).values()]
    nested = [part for part in parts if isinstance(part, dict)]
    if not nested:
        return {str(spec.get("type"))}
    return set().union(*map(_scalars, nested))


def _check_known(given: Collection[str], known: Collection[str], option: str, kind: str) -> None:
    for name in given:
        if name not in known:
            # as in SQL, the case may differ
            names = {label.casefold(): label for label in known}
            nearest = difflib.get_close_matches(name.casefold(), names, n=1)
            meant = f" Did you mean {names[nearest[0]]!r}?" if nearest else ""
            raise ScriptError(
                f"{option}: the signature has no {kind} {name!r}.{meant} Its {kind}s are: "
                f"{enumerated(known) or 'none'}"
            )


def _first_twice(names: Sequence[str]) -> str | None:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)


def outputs(
    schema: Schema | None, *, named: Sequence[tuple[str, str]], taken: Collection[str]
) -> list[tuple[Output, SqlType]]:
    """Make a script's outputs from the outputs of a signature.

    Args:
        schema: the outputs in the ``MLmodel``, or None.
        named: names and columns' types by position; they take precedence.
        taken: names of other emitted columns.

    Raises:
        ScriptError: outputs are not known or cannot be emitted, or names clash.
    """
    slots = _output_slots(schema, len(named))
    if len(named) > len(slots):
        raise ScriptError(
            f"--output is given {len(named)} times, but the model predicts {len(slots)} column(s): "
            f"{enumerated(slot.label for slot in slots)}"
        )
    plain = _plain_names([slot.label for slot in slots])
    made: list[tuple[Output, SqlType]] = []
    for position, slot in enumerate(slots):
        if position < len(named):
            name, text = named[position]
            column, what = parse_identifier(name, "--output"), f"--output {name}"
            emitted, sql = emitted_as(slot.type, parse_sql_type(text, what), what)
        else:
            column = _output_name(plain[position])
            if slot.type is None:
                raise ScriptError(_unknown_outputs(f"the type of {slot.label} is not known"))
            emitted, sql = slot.type, DEFAULTS[slot.type]
        made.append((Output(column=column, type=emitted, scale=sql.scale, field=slot.name), sql))
    if twice := _first_twice([*taken, *(output.column for output, _ in made)]):
        raise ScriptError(
            f"Two emitted columns would be called {twice!r}. Name the outputs, in their order: "
            "--output NAME=TYPE"
        )
    return made


def _output_slots(schema: Schema | None, count: int) -> list[_Slot]:
    if not schema:
        if not count:
            raise ScriptError(_unknown_outputs("its signature has no outputs"))
        return [_Slot(label=f"PREDICTION_{i}", name=None, type=None) for i in range(count)]
    if schema[0].get("type") != "tensor":
        return _column_slots("PREDICTION", schema, "output")
    if len(schema) > 1:
        return [_output_of_tensor(spec) for spec in schema]
    shape = (schema[0].get("tensor-spec") or {}).get("shape")
    if shape == [-1, -1]:
        if not count:
            raise ScriptError(_unknown_outputs("it predicts a tensor of any number of columns"))
        dtype = schema[0]["tensor-spec"].get("dtype")
        return _tensor_slots("PREDICTION", schema[0].get("name"), _DTYPES.get(dtype), count)
    name, dtype, columns = _tensor(schema[0], "output")
    return _tensor_slots("PREDICTION", name, _DTYPES.get(dtype), columns)


def _output_of_tensor(spec: Mapping[str, Any]) -> _Slot:
    name, dtype, columns = _tensor(spec, "output")
    if columns is not None:
        raise ScriptError(
            f"The signature has several output tensors, and {name!r} has more than one column. "
            "Wrap the model in a mlflow.pyfunc.PythonModel that returns one data frame."
        )
    return _Slot(label=str(name), name=name, type=_DTYPES.get(dtype))


def _unknown_outputs(reason: str) -> str:
    return (
        f"The model's outputs are not known: {reason}. Declare them with --output NAME=TYPE, once "
        "for each column, or let the model score its input example here: --score-example"
    )


def _plain_names(labels: list[str]) -> list[str]:
    """Return names in upper case, to avoid quotation marks, unless they would clash."""
    upper = [label.upper() if label.isascii() else label for label in labels]
    plain = [
        u if u.replace("_", "A").isalnum() and upper.count(u) == 1 else label
        for u, label in zip(upper, labels, strict=True)
    ]
    return [name.replace(".", "_") for name in plain]


def _output_name(name: str) -> str:
    try:
        return check_name(name, "The signature's outputs")
    except ScriptError as error:
        raise ScriptError(f"{error} Name the outputs, in their order: --output NAME=TYPE") from None


def model_params(schema: Schema | None, given: Mapping[str, object]) -> dict[str, object]:
    """Parse and check values for the params of a signature.

    Args:
        schema: the params in the ``MLmodel``, or None.
        given: values by name; texts are parsed as the type in the signature.

    Raises:
        ScriptError: a param is not in the signature, or a value does not fit it.
    """
    known = {str(spec.get("name")): spec for spec in schema or ()}
    _check_known(given, known, "--param", "param")
    return {name: _param(name, known[name], value) for name, value in given.items()}


def _param(name: str, spec: Mapping[str, Any], value: object) -> object:
    kind, is_array = spec.get("type"), bool(spec.get("shape"))
    if isinstance(value, str) and (is_array or kind != "string"):
        try:
            # as in SQL: TRUE is true
            text = value.lower() if kind == "boolean" and not is_array else value
            value = json.loads(text)
        except ValueError:
            pass
    if is_array and isinstance(value, list) and all(_fits(item, kind) for item in value):
        return value
    if not is_array and _fits(value, kind):
        return value
    kind = f"a list of {kind}, in JSON" if is_array else kind
    raise ScriptError(f"--param {name}: {value!r} is not {kind}, as the model's signature requires")


def _fits(value: object, kind: object) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind in {"integer", "long"}:
        bound = _INT32 if kind == "integer" else _INT64
        return isinstance(value, int) and -bound <= value < bound
    if kind in {"float", "double"}:
        return isinstance(value, int | float) and abs(value) < float("inf")
    if kind == "string":
        return isinstance(value, str)
    return kind == "object" and isinstance(value, dict)
