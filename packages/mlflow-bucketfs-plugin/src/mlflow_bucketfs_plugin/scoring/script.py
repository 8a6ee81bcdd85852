"""The text of a scoring script, and the SELECT that runs it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from mlflow_bucketfs_core.errors import printable

from mlflow_bucketfs_plugin.constraints import compare_model
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.example import predicted_schema
from mlflow_bucketfs_plugin.scoring.loader import choose_loader
from mlflow_bucketfs_plugin.scoring.model import fetched_model, locate_model
from mlflow_bucketfs_plugin.scoring.names import (
    parse_object_name,
    sql_columns,
    sql_name,
    sql_object_name,
    sql_parameters,
)
from mlflow_bucketfs_plugin.scoring.signature import model_params, outputs, parameters
from mlflow_bucketfs_plugin.scoring.spec import ScoringSpec, udf_source
from mlflow_bucketfs_plugin.scoring.sql_types import EXACT_ID, SqlType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlflow_bucketfs_plugin.scoring.model import ModelLocation, StoredModel
    from mlflow_bucketfs_plugin.scoring.signature import Parameters
    from mlflow_bucketfs_plugin.scoring.spec import Input, Key, Output

METADATA_MARK = "# mlflow-bucketfs: "
"""Prefix of the line of a script that contains its metadata as JSON."""
ERROR_COLUMN = "SCORING_ERROR"
_ERROR_TYPE = SqlType(kind="VARCHAR", text="VARCHAR(2000) UTF8")
_MOST_BATCH_ROWS = 1_000_000
_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NO_TABLE = "MY_TABLE"
# 26 characters, which pandas and Python read as ISO
_ISO_FORMAT = "YYYY-MM-DD HH24:MI:SS.FF6"
_LINE = 100
_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ScriptOptions:
    """Options for making a scoring script; each is also an option of ``mlflow-bucketfs sql``.

    Attributes:
        keys: columns to pass through, each ``COLUMN [TYPE]``; ``DECIMAL(36,0)`` without a type.
        language: alias of the script language.
        batch_size: rows that are scored at a time.
        types: columns' types by feature.
        outputs: names and columns' types of the outputs, by position.
        renames: parameters' names by feature.
        params: values for the model's params; texts are parsed as the type in the signature.
        null_as_empty: text features for which NULL is the empty string.
        on_error: ``column`` adds a column with the reason why a row has no prediction.
        table: the table in the SELECT.
        view: a view for the SELECT; needs ``table``.
        loader: ``direct`` loads without MLflow; ``auto`` does if predictions stay the same.
        verify: put SHA-256 digests of the model's files into the script.
        mounted_path: the model's folder as UDFs see it, if that does not follow from its URI.
        artifacts_destination: the option of the tracking server, if it proxies artifacts.
        constraints: the ``constraints.txt`` of the script-language container to compare with.
        score_example: score the model's input example on this machine to infer its outputs. This
            loads the model, and so runs its code.
    """

    keys: Sequence[str] = ()
    language: str = "PYTHON3_MLFLOW"
    batch_size: int = 10_000
    types: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[tuple[str, str]] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    null_as_empty: Sequence[str] = ()
    on_error: Literal["fail", "column"] = "fail"
    table: str | None = None
    view: str | None = None
    loader: Literal["auto", "mlflow", "direct"] = "auto"
    verify: bool = True
    mounted_path: str | None = None
    artifacts_destination: str | None = None
    constraints: Path | None = None
    score_example: bool = False


_DEFAULTS = ScriptOptions()


@dataclass(frozen=True, kw_only=True)
class ScriptColumn:
    """A parameter or an emitted column of a script.

    Attributes:
        name: its name, as the database stores it.
        sql_type: its declared type.
        source: the feature or output in the model's signature; ``None`` for keys, for the reasons
            of ``on_error="column"``, and where the signature has no names.
    """

    name: str
    sql_type: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScoringScript:
    """A script that scores rows with one version of a model.

    Attributes:
        name: its name as SQL, with its schema if one was given.
        text: the statement that creates it, with the ``/`` that ends it.
        inputs: its parameters, keys first.
        outputs: its emitted columns, keys first.
        select: a statement that runs it.
        assumptions: sentences for its user, such as assumptions that were made.
        metadata: the model's URIs, path and ids, as in the script's line ``# mlflow-bucketfs:``.
        language: alias of its script language.
        spec: the description of the model that its code reads.
    """

    name: str
    text: str
    inputs: tuple[ScriptColumn, ...]
    outputs: tuple[ScriptColumn, ...]
    select: str
    assumptions: tuple[str, ...]
    metadata: Mapping[str, object]
    language: str
    spec: ScoringSpec


def scoring_script(
    model_uri: str,
    name: str,
    options: ScriptOptions = _DEFAULTS,
    *,
    notes: Mapping[str, object] | None = None,
) -> ScoringScript:
    """Make a script that scores rows with a model; no database is needed.

    Downloads the model from BucketFS to compute the digests of its files, or only its ``MLmodel``
    without ``options.verify``.

    Args:
        model_uri: ``models:/name/version``, ``models:/name@alias``, ``models:/m-…``, ``runs:/…``
            or a URI in BucketFS. It is resolved to a version now.
        name: the script's name, ``[SCHEMA.]NAME``.
        options: all other options.
        notes: additional entries for the script's metadata.

    Raises:
        ScriptError: the model cannot be scored with SQL, or an option is invalid.
        MlflowException: the tracking server does not have the model, or a download failed.
        BucketFSError: a URI is malformed, or the bucket cannot be listed.
        OSError: the constraints cannot be read.
    """
    qualified = sql_object_name(parse_object_name(name, "--name"))
    table = options.table and sql_object_name(parse_object_name(options.table, "--table"))
    view = options.view and sql_object_name(parse_object_name(options.view, "--view"))
    _check_options(options)
    location = locate_model(
        model_uri,
        artifacts_destination=options.artifacts_destination,
        mounted=options.mounted_path,
    )
    with fetched_model(location) as model:
        # errors that are found in the MLmodel are raised before a download that may be large
        made = parameters(
            model.schema("inputs"),
            keys=options.keys,
            types=options.types,
            renames=options.renames,
            null_as_empty=options.null_as_empty,
        )
        params = model_params(model.schema("params"), options.params)
        taken = [key.column for key in made.keys]
        taken += [ERROR_COLUMN] if options.on_error == "column" else []
        predicted: list[tuple[Output, SqlType]] = []
        if not options.score_example:
            predicted = outputs(model.schema("outputs"), named=options.outputs, taken=taken)
        digests: Mapping[str, str] = {}
        if options.verify or options.score_example or options.constraints is not None:
            digests = model.download()
        if options.score_example:
            predicted = outputs(predicted_schema(model), named=options.outputs, taken=taken)
        spec = ScoringSpec(
            model=location.mounted,
            origin=location.origin,
            keys=made.keys,
            inputs=made.inputs,
            outputs=tuple(output for output, _ in predicted),
            loader=choose_loader(model, options.loader, parameters=made, has_params=bool(params)),
            files=digests if options.verify else None,
            tensor=made.tensor,
            params=params,
            batch_rows=options.batch_size,
            on_error=options.on_error,
        )
        metadata = _metadata(location, model)
        assumptions = tuple(_assumptions(location, model, spec, made, options))
    inputs = _columns([*made.keys, *made.inputs], made.sql_types)
    metadata["inputs"] = [[column.name, column.sql_type] for column in inputs]
    metadata |= notes or {}
    emitted = [
        *_columns(made.keys, made.sql_types),
        *_columns(spec.outputs, [sql for _, sql in predicted]),
    ]
    if options.on_error == "column":
        emitted.append(ScriptColumn(name=ERROR_COLUMN, sql_type=str(_ERROR_TYPE)))
    return ScoringScript(
        name=qualified,
        text=_text(
            qualified,
            language=options.language,
            inputs=inputs,
            emitted=emitted,
            metadata=metadata,
            code=udf_source(spec),
        ),
        inputs=tuple(inputs),
        outputs=tuple(emitted),
        select=_select(qualified, spec, table=table, view=view),
        assumptions=assumptions,
        metadata=metadata,
        language=options.language,
        spec=spec,
    )


def _check_options(options: ScriptOptions) -> None:
    if not _LANGUAGE.fullmatch(options.language):
        raise ScriptError(
            f"--language: {options.language!r} is not the alias of a script language, such as "
            f"{_DEFAULTS.language}."
        )
    if not 1 <= options.batch_size <= _MOST_BATCH_ROWS:
        raise ScriptError(
            f"--batch-size: {options.batch_size} is not between 1 and {_MOST_BATCH_ROWS:,} rows."
        )
    for option, value, possible in (
        ("--on-error", options.on_error, ("fail", "column")),
        ("--loader", options.loader, ("auto", "mlflow", "direct")),
    ):
        if value not in possible:
            raise ScriptError(f"{option}: {value!r} is not one of {', '.join(possible)}.")
    if options.view and not options.table:
        raise ScriptError("--view needs --table: a view reads from a table.")


def _columns(
    declared: Sequence[Key | Input | Output], types: Sequence[SqlType]
) -> list[ScriptColumn]:
    return [
        ScriptColumn(
            name=column.column,
            sql_type=str(sql),
            source=getattr(column, "feature", None) or getattr(column, "field", None),
        )
        for column, sql in zip(declared, types, strict=False)
    ]


def _metadata(location: ModelLocation, model: StoredModel) -> dict[str, object]:
    metadata: dict[str, object] = {
        "plugin": version("mlflow-bucketfs-plugin"),
        "model": location.origin,
        "requested": location.requested,
        "artifacts": str(location.uri),
        "path": location.mounted,
    }
    for key in ("model_id", "run_id"):
        if isinstance(value := model.mlmodel.get(key), str):
            metadata[key] = value
    return metadata


def read_metadata(text: str) -> dict[str, Any]:
    """Return the metadata in a script's text; empty if this package did not make the script."""
    line = next((line for line in text.splitlines() if line.startswith(METADATA_MARK)), "")
    try:
        found = json.loads(line.removeprefix(METADATA_MARK))
    except ValueError:
        return {}
    is_known = isinstance(found, dict) and {"model", "requested", "inputs"} <= set(found)
    return found if is_known else {}


def _text(
    name: str,
    *,
    language: str,
    inputs: Sequence[ScriptColumn],
    emitted: Sequence[ScriptColumn],
    metadata: Mapping[str, object],
    code: str,
) -> str:
    names = sql_parameters([column.name for column in inputs])
    declared = ",\n".join(f"  {n} {c.sql_type}" for n, c in zip(names, inputs, strict=True))
    emits = ",\n".join(f"  {sql_name(column.name)} {column.sql_type}" for column in emitted)
    notes = [
        f"Scores rows with {metadata['model']}",
        *(f"of run {run}" for run in (metadata.get("run_id"),) if run),
        f"at {metadata['path']}.",
    ]
    comments = (
        " ".join(map(printable, notes)),
        f"Made by mlflow-bucketfs-plugin {metadata['plugin']}; to change it, make it again.",
        # see read_metadata
        f"{METADATA_MARK.removeprefix('# ')}{json.dumps(metadata)}",
    )
    head = (
        f"CREATE OR REPLACE {language} SET SCRIPT {name}(\n{declared}\n)\nEMITS (\n{emits}\n) AS\n"
    )
    return head + "".join(f"# {line}\n" for line in comments) + code.rstrip("\n") + "\n/\n"


def _select(name: str, spec: ScoringSpec, *, table: str | None, view: str | None) -> str:
    # keys were given as SQL identifiers, features have names from Python
    keys = [sql_name(key.column) for key in spec.keys]
    features = sql_columns([feature.column for feature in spec.inputs])
    if table:
        features = [
            f"TO_CHAR({column}, '{_ISO_FORMAT}')" if feature.iso else column
            for column, feature in zip(features, spec.inputs, strict=True)
        ]
    arguments = keys + features
    select = _wrapped(f"SELECT {name}(", arguments) + f"\nFROM {table or _NO_TABLE}"
    select += " GROUP BY IPROC();"
    return f"CREATE OR REPLACE VIEW {view} AS\n{select}" if view else select


def _wrapped(start: str, arguments: Sequence[str]) -> str:
    lines, line = [], start
    for position, argument in enumerate(arguments):
        piece = argument + (", " if position + 1 < len(arguments) else ")")
        if len(line) + len(piece.rstrip()) > _LINE and line.strip():
            lines.append(line.rstrip())
            line = "  "
        line += piece
    return "\n".join([*lines, line])


def _assumptions(
    location: ModelLocation,
    model: StoredModel,
    spec: ScoringSpec,
    made: Parameters,
    options: ScriptOptions,
) -> Iterator[str]:
    if location.origin != location.requested:
        yield (
            f"{location.requested} is {location.origin} now. The script keeps this version: make "
            "it again to promote another one."
        )
    yield f"UDFs see the model at {location.mounted}."
    if options.verify:
        yield (
            f"The script verifies {len(spec.files or ())} files by their SHA-256; "
            f"{_size(model.size_bytes)} were downloaded to compute it."
        )
    else:
        yield (
            "The model's files are not verified: anyone who can write to the bucket can change the "
            "code that the script runs."
        )
    yield (
        "The model is loaded without MLflow."
        if spec.loader.kind == "direct"
        else "The model is loaded by MLflow, which takes seconds per process."
    )
    if not spec.keys:
        yield "Without --key, the results cannot be assigned to the table's rows."
    elif untyped := [
        key.column for key, sql in zip(spec.keys, made.sql_types, strict=False) if sql is EXACT_ID
    ]:
        yield f"Keys without a type are whole numbers, {EXACT_ID}: {', '.join(untyped)}."
    dotted = {
        i.feature: i.column
        for i in spec.inputs
        if i.feature and "." in i.feature and i.feature not in options.renames
    }
    for feature, column in dotted.items():
        yield f"The feature {feature} is the parameter {column}: identifiers cannot have dots."
    slow = [
        i.column
        for i, sql in zip(made.inputs, made.sql_types[len(made.keys) :], strict=True)
        if i.type == "datetime" and sql.kind == "TIMESTAMP"
    ]
    if slow:
        yield (
            f"A TIMESTAMP is read three times slower than other types: {', '.join(slow)}. Faster: "
            f"--type '{slow[0]}=VARCHAR(30)'"
        )
    placeholder = "" if options.table else f" Replace {_NO_TABLE} by the table."
    yield f"The SELECT assumes that the table's columns are named as the features.{placeholder}"
    if options.constraints is not None:
        yield from _differences(model.directory, options.constraints)


def _differences(directory: Path, constraints: Path) -> Iterator[str]:
    try:
        found = compare_model(directory, constraints.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not constraints.exists():
            raise
        yield "The model has no requirements.txt to compare with the container."
        return
    if not found:
        yield "The model and the container have the same versions."
    for difference in found:
        yield f"Another version: {difference}"


def _size(count: int) -> str:
    if count < _MB:
        return f"{count:,} bytes"
    return f"{count / _MB:,.1f} MB"
