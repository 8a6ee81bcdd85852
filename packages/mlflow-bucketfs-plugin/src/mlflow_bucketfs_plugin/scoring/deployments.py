"""The target ``exasol`` of ``mlflow deployments``: models as scripts in a schema.

MLflow loads this module for every command that names the target, and expects ``run_local``,
``target_help`` and one client in it. What a deployment was made from stands in a comment of its
script: the database alone knows which deployments there are.
"""

from __future__ import annotations

import json
import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click
from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    NOT_IMPLEMENTED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.settings import DEFAULT_MOUNT_ROOT, parse_boolean

from mlflow_bucketfs_plugin.mlflow_errors import mlflow_errors
from mlflow_bucketfs_plugin.scoring import cli
from mlflow_bucketfs_plugin.scoring.database import Database, Target
from mlflow_bucketfs_plugin.scoring.literals import literal_table
from mlflow_bucketfs_plugin.scoring.names import (
    ScriptError,
    parse_identifier,
    parse_object_name,
    quoted,
    sql_columns,
    sql_object_name,
)
from mlflow_bucketfs_plugin.scoring.script import (
    METADATA_MARK,
    ScriptColumn,
    ScriptOptions,
    scoring_script,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from mlflow_bucketfs_plugin.scoring.script import ScoringScript

_FLAVOR = "python_function"
_OUTSIDE_BRACKETS = re.compile(r",(?![^(\[{]*[)\]}])")
# Large ids of a result; beyond this, JSON and pandas would round them
_MOST_IN_INT64 = 2**63 - 1

_PROBE = """\
CREATE {language} SCALAR SCRIPT {name}() RETURNS VARCHAR(2000000) UTF8 AS
import os

def run(ctx):
    path, root = {path!r}, os.environ.get("EXA_BUCKETFS_MOUNT_ROOT", {mount_root!r})
    while path.startswith({mount_root!r}) and not os.path.exists(root + path[{skipped}:]):
        path = os.path.dirname(path)
    return path
"""


class ExasolDeploymentClient(BaseDeploymentClient):
    """Deploys models as scripts of one schema; ``target_help`` has the guide to it.

    Each method has a session of its own, in one transaction: it is done as a whole or not at all.

    Args:
        target_uri: ``exasol://host[:port]/SCHEMA``.

    Raises:
        MlflowException: the URI names something else.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call]
        self._target = Target.parse(target_uri)

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, str] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Install a model as a new script.

        Args:
            name: of the script, without a schema.
            model_uri: see :func:`~mlflow_bucketfs_plugin.scoring.scoring_script`.
            flavor: ``python_function`` or None.
            config: options of ``mlflow-bucketfs sql`` without the dashes; lists with commas.
            endpoint: not supported.

        Returns:
            ``name`` and ``flavor``, and what :meth:`get_deployment` returns.

        Raises:
            MlflowException: with MLflow's error codes; nothing was created then.
        """
        _refuse(flavor, endpoint)
        with _mlflow_errors():
            made = self._make(name, model_uri, dict(config or {}))
        with Database(self._target) as database:
            stored = _stored_name(name)
            if (found := _find(database, stored)) is not None:
                what = (
                    f"There is a deployment {name} already, of {found.metadata['model']}: "
                    f"`mlflow deployments update` replaces its model."
                    if found.is_ours
                    else f"There is a script {name} in {self._target.schema} already, which is no "
                    "deployment of MLflow: choose another name."
                )
                raise MlflowException(what, error_code=RESOURCE_ALREADY_EXISTS)
            # without OR REPLACE, also if the user may not see what is there
            text = made.text.replace("CREATE OR REPLACE ", "CREATE ", 1)
            self._install(database, made, text, earlier_view=None)
        return _description(stored, made.metadata)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, str] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Replace the model of a deployment: promotion and rollback.

        Args:
            name: of the script.
            model_uri: the new model; None resolves the URI that was deployed once more, such as
                an alias that means another version now.
            flavor: ``python_function`` or None.
            config: changed options. The others stay; an empty value takes one back.
            endpoint: not supported.

        Returns:
            ``name`` and ``flavor``, and what :meth:`get_deployment` returns.

        Raises:
            MlflowException: with MLflow's error codes; the deployment is as before then.
        """
        _refuse(flavor, endpoint)
        stored = _stored_name(name)
        with Database(self._target) as database:
            found = _require(database, stored)
        before = found.metadata
        merged = {**_text_mapping(before.get("config")), **(config or {})}
        with _mlflow_errors():
            made = self._make(
                name,
                model_uri or str(before["requested"]),
                {option: value for option, value in merged.items() if value},
            )
        with Database(self._target) as database:
            if _require(database, stored).text != found.text:
                raise MlflowException(
                    f"The deployment {name} was changed by somebody else meanwhile: it is as they "
                    "left it. Look at it with `mlflow deployments get`, and update it again.",
                    error_code=RESOURCE_CONFLICT,
                )
            self._install(database, made, made.text, earlier_view=_view_of(before))
        return _description(stored, made.metadata)

    def delete_deployment(
        self, name: str, config: Mapping[str, str] | None = None, endpoint: str | None = None
    ) -> None:
        """Drop a deployment's script and its view; nothing happens if there is none.

        Args:
            name: of the script.
            config: there are no options.
            endpoint: not supported.

        Raises:
            MlflowException: the script is no deployment, or may not be dropped.
        """
        _refuse(None, endpoint)
        if config:
            raise _invalid(f"delete has no options: {', '.join(config)}.")
        with Database(self._target) as database:
            stored = _stored_name(name)
            if _find(database, stored) is None:
                return
            found = _require(database, stored)
            if view := _view_of(found.metadata):
                database.execute(f"DROP VIEW IF EXISTS {view}")
            database.execute(f"DROP SCRIPT {self._qualified(stored)}")
            database.commit()

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return the deployments in the schema that the user may see.

        Args:
            endpoint: not supported.

        Raises:
            MlflowException: the database cannot be asked.
        """
        _refuse(None, endpoint)
        with Database(self._target) as database:
            return [
                _description(name, found.metadata)
                for name, found in sorted(_scripts(database).items())
                if found.is_ours
            ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return what a deployment was made from.

        Args:
            name: of the script.
            endpoint: not supported.

        Raises:
            MlflowException: there is no such deployment.
        """
        _refuse(None, endpoint)
        stored = _stored_name(name)
        with Database(self._target) as database:
            return _description(stored, _require(database, stored).metadata)

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> pd.DataFrame:
        """Score rows in the database.

        Args:
            deployment_name: of the script.
            inputs: a data frame with a column for each parameter of the script; it is sent as a
                table of literals. Or what is in the database: ``{"table": "SCHEMA.TABLE"}`` or
                ``{"query": "SELECT …"}``, also as a frame with one row, whose columns are called
                as the parameters.
            endpoint: not supported.

        Returns:
            What the script emits: the keys, then the predictions. A DECIMAL without decimals is
            an int, or text beyond 64 bits, which JSON would round.

        Raises:
            MlflowException: there is no such deployment, the rows do not fit, or scoring failed.
        """
        import pandas as pd  # noqa: PLC0415 -- the other commands need none

        _refuse(None, endpoint)
        if deployment_name is None:
            raise _invalid("predict needs the name of a deployment: --name.")
        stored = _stored_name(deployment_name)
        with Database(self._target) as database:
            metadata = _require(database, stored).metadata
            columns = [ScriptColumn(name=n, sql_type=t) for n, t in metadata["inputs"]]
            with _mlflow_errors():
                source, names = _source(inputs, columns, pd)
            types, rows = database.query(
                f"SELECT {self._qualified(stored)}({', '.join(names)})\n"
                f"FROM {source} GROUP BY IPROC()"
            )
        frame = pd.DataFrame(rows, columns=list(types), dtype=object)
        for position, described in enumerate(types.values()):
            frame.isetitem(position, _converted(frame.iloc[:, position], described, pd))
        return frame

    def _make(self, name: str, model_uri: str, config: dict[str, str]) -> ScoringScript:
        options = _options(config)
        if options.view:
            view = parse_object_name(options.view, "view")
            if len(view) == 1:
                config = {**config, "view": sql_object_name((self._target.schema, *view))}
                options = _options(config)
        return scoring_script(
            model_uri,
            self._qualified(_stored_name(name)),
            options,
            notes={"config": config},
        )

    def _qualified(self, stored: str) -> str:
        return sql_object_name((self._target.schema, stored))

    def _install(
        self, database: Database, made: ScoringScript, text: str, *, earlier_view: str | None
    ) -> None:
        self._check_schema(database)
        self._check_language(database, made.language)
        self._check_mount(database, made)
        database.execute(_without_end(text))
        view = _view_of(made.metadata)
        if earlier_view and earlier_view != view:
            database.execute(f"DROP VIEW IF EXISTS {earlier_view}")
        if view:
            if view != earlier_view and _has_view(database, view):
                raise MlflowException(
                    f"There is a view {view} already, which is not this deployment's: choose "
                    "another name with -C view=…",
                    error_code=RESOURCE_ALREADY_EXISTS,
                )
            database.execute(made.select.rstrip(";"))
        database.commit()

    def _check_schema(self, database: Database) -> None:
        schema = self._target.schema
        found = database.execute(
            "SELECT COUNT(*) FROM SYS.EXA_SCHEMAS WHERE SCHEMA_NAME = {schema}", schema=schema
        )
        if not int(found[0][0]):
            raise MlflowException(
                f"There is no schema {schema} in Exasol at {self._target.address}: "
                f"CREATE SCHEMA {sql_object_name((schema,))};",
                error_code=RESOURCE_DOES_NOT_EXIST,
            )

    def _check_language(self, database: Database, language: str) -> None:
        found = database.execute(
            "SELECT SESSION_VALUE FROM SYS.EXA_PARAMETERS WHERE PARAMETER_NAME = {name}",
            name="SCRIPT_LANGUAGES",
        )
        languages = str(found[0][0]) if found else ""
        if language.upper() in (each.partition("=")[0].upper() for each in languages.split()):
            return
        added = (
            f"{languages} {language}=localzmq+protobuf:///bfsdefault/default/CONTAINER?lang=python"
            "#buckets/bfsdefault/default/CONTAINER/exaudf/exaudfclient"
        ).strip()
        raise MlflowException(
            f"The database has no script language {language}. Upload the script-language container "
            "to BucketFS, put its path in the place of CONTAINER, and let an administrator run\n"
            f"ALTER SYSTEM SET SCRIPT_LANGUAGES='{added}';",
            error_code=INVALID_PARAMETER_VALUE,
        )

    def _check_mount(self, database: Database, made: ScoringScript) -> None:
        """Look for the model with a script of this transaction, which nobody else ever sees."""
        path = f"{made.spec.model}/MLmodel"
        probe = sql_object_name(
            (self._target.schema, f"MLFLOW_PROBE_{secrets.token_hex(8).upper()}")
        )
        database.execute(
            _PROBE.format(
                language=made.language,
                name=probe,
                path=path,
                mount_root=DEFAULT_MOUNT_ROOT,
                skipped=len(DEFAULT_MOUNT_ROOT),
            )
        )
        seen = str(database.execute(f"SELECT {probe}()")[0][0])
        database.execute(f"DROP SCRIPT {probe}")
        if seen.endswith("/MLmodel"):
            return
        bucket = "/".join(path.split("/")[:4])  # /buckets/service/bucket
        if len(seen) < len(bucket):
            reason = (
                f"the database does not mount the bucket: there is no {bucket}. A private bucket "
                "is mounted for users with a connection to it; else the model was logged to "
                "another cluster."
            )
        else:
            reason = (
                f"the database sees {seen}, and nothing below it on this path. A fresh upload may "
                "not have reached the node yet; else the model was logged to another cluster."
            )
        raise MlflowException(
            f"The model is not at {path}: {reason} Nothing was changed.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )


@dataclass(frozen=True)
class _Script:
    """A script of the schema, and what its comment says of it."""

    text: str
    metadata: dict[str, Any]

    @property
    def is_ours(self) -> bool:
        return bool(self.metadata)


def _scripts(database: Database, name: str | None = None) -> dict[str, _Script]:
    rows = database.execute(
        "SELECT SCRIPT_NAME, SCRIPT_TEXT FROM SYS.EXA_ALL_SCRIPTS "
        "WHERE SCRIPT_SCHEMA = {schema} AND COALESCE({name}, SCRIPT_NAME) = SCRIPT_NAME",
        schema=database.target.schema,
        name=name,
    )
    return {str(found): _Script(str(text), _metadata(str(text))) for found, text in rows}


def _metadata(text: str) -> dict[str, Any]:
    line = next((each for each in text.splitlines() if each.startswith(METADATA_MARK)), None)
    try:
        found = json.loads(line.removeprefix(METADATA_MARK)) if line else {}
    except ValueError:
        return {}
    return (
        found if isinstance(found, dict) and {"model", "requested", "inputs"} <= set(found) else {}
    )


def _find(database: Database, name: str) -> _Script | None:
    return _scripts(database, name).get(name)


def _require(database: Database, name: str) -> _Script:
    found = _find(database, name)
    if found is None:
        raise MlflowException(
            f"There is no deployment {name} in {database.target.schema}, or the user may not see "
            f"it. `mlflow deployments list` shows those that there are.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    if not found.is_ours:
        raise MlflowException(
            f"The script {name} in {database.target.schema} is no deployment of MLflow: it is left "
            "as it is.",
            error_code=RESOURCE_CONFLICT,
        )
    return found


def _has_view(database: Database, view: str) -> bool:
    schema, name = parse_object_name(view, "view")
    found = database.execute(
        "SELECT COUNT(*) FROM SYS.EXA_ALL_VIEWS "
        "WHERE VIEW_SCHEMA = {schema} AND VIEW_NAME = {name}",
        schema=schema,
        name=name,
    )
    return bool(int(found[0][0]))


def _view_of(metadata: Mapping[str, Any]) -> str | None:
    return _text_mapping(metadata.get("config")).get("view")


def _text_mapping(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _description(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "flavor": _FLAVOR, **metadata}


def _stored_name(name: str) -> str:
    with _mlflow_errors():
        return parse_identifier(name, "--name")


def _without_end(text: str) -> str:
    return text.rstrip().removesuffix("\n/")


def _refuse(flavor: str | None, endpoint: str | None) -> None:
    if flavor not in {None, _FLAVOR}:
        raise _invalid(f"The flavor {flavor!r} cannot be deployed: models are scored as {_FLAVOR}.")
    if endpoint is not None:
        raise MlflowException(
            "The target exasol has no endpoints: who may call a deployment, the database decides "
            "(GRANT EXECUTE).",
            error_code=NOT_IMPLEMENTED,
        )


def _invalid(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    with mlflow_errors():
        try:
            yield
        except (ScriptError, OSError) as error:
            raise _invalid(str(error)) from error


def _options(config: Mapping[str, str]) -> ScriptOptions:
    """Read ``-C`` values as the options of ``mlflow-bucketfs sql``."""
    known = {
        option.opts[0].removeprefix("--"): option
        for option in cli.sql.params
        if isinstance(option, click.Option) and option.name != "name"
    }
    arguments = []
    for given, value in config.items():
        name = given.replace("_", "-")
        if name not in known:
            raise _invalid(f"-C {given}: there is no such option. There are {', '.join(known)}.")
        option = known[name]
        if option.is_flag:
            try:
                is_on = parse_boolean(str(value), f"-C {given}")
            except ConfigurationError as error:
                raise _invalid(str(error)) from None
            off = option.secondary_opts
            arguments += [option.opts[0]] if is_on else off[:1]
        elif option.multiple:
            parts = (part.strip() for part in _OUTSIDE_BRACKETS.split(str(value)))
            arguments += [f"--{name}={part}" for part in parts if part]
        else:
            arguments.append(f"--{name}={value}")
    try:
        with cli.sql.make_context("sql", ["-", "--name=-", *arguments]) as context:
            return cli.script_options(context.params)
    except click.UsageError as error:
        raise _invalid(f"-C: {error.format_message()}") from None


def _source(inputs: Any, columns: Sequence[ScriptColumn], pd: Any) -> tuple[str, Sequence[str]]:
    """Return what to select from, and the arguments of the script."""
    names = [column.name for column in columns]
    if isinstance(inputs, pd.DataFrame) and len(inputs) == 1 and len(inputs.columns) == 1:
        label = inputs.columns[0]
        if label in {"table", "query"} and label not in names:
            inputs = {label: inputs.iloc[0, 0]}
    if isinstance(inputs, dict) and set(inputs) == {"table"}:
        table = parse_object_name(str(inputs["table"]), "table")
        return sql_object_name(table), sql_columns(names)
    if isinstance(inputs, dict) and set(inputs) == {"query"}:
        query = str(inputs["query"]).strip().rstrip(";")
        return f"(\n{query}\n)", sql_columns(names)
    if isinstance(inputs, (dict, list)):
        inputs = pd.DataFrame(inputs)
    if not isinstance(inputs, pd.DataFrame):
        raise ScriptError(
            'predict takes a data frame, {"table": "SCHEMA.TABLE"} or {"query": "SELECT …"}, not '
            f"{type(inputs).__name__}."
        )
    return literal_table(inputs, columns), [quoted(name) for name in names]


def _converted(column: pd.Series[Any], described: Mapping[str, Any], pd: Any) -> pd.Series[Any]:
    """Return a column of the result, as the driver has it, with Python's types."""
    if described["type"] == "DECIMAL" and not described.get("scale"):
        whole = [None if value is None else int(value) for value in column]
        if any(value is not None and abs(value) > _MOST_IN_INT64 for value in whole):
            return pd.Series([None if v is None else str(v) for v in whole], dtype=object)
        return pd.Series(whole, dtype=object if None in whole else "int64")
    if described["type"] in {"DOUBLE", "DECIMAL"}:
        return pd.Series([None if v is None else float(v) for v in column], dtype="float64")
    return column


def run_local(
    name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, str] | None = None
) -> NoReturn:
    """Refuse to run a model locally.

    Raises:
        MlflowException: always, with the commands that do.
    """
    del name, flavor, config
    raise MlflowException(
        "The target exasol needs a database. Without one: "
        f"mlflow-bucketfs sql {model_uri} --name NAME > script.sql, then "
        "mlflow-bucketfs-testing udf script.sql --input rows.csv",
        error_code=NOT_IMPLEMENTED,
    )


def target_help() -> str:
    """Return the guide to the target in short."""
    return _HELP


_HELP = """\
Models as scripts in a schema of Exasol; scored in SQL, without downloading anything.

  export EXA_USER=… EXA_PASSWORD=…
  mlflow deployments create -t exasol://db.example.com:8563/ML --name CHURN \\
      -m models:/churn@champion -C key=customer_id
  SELECT ML.CHURN(customer_id, age, income) FROM customers GROUP BY IPROC();

Target: exasol://HOST[:PORT]/SCHEMA. The model has to be in BucketFS (exa+bfs://…, exa+bfss://…).
An alias is resolved when the script is made: `update` promotes another version, or goes back.

Options, -C NAME=VALUE, as of `mlflow-bucketfs sql --help`; lists with commas:
  key=customer_id,day DATE   columns that are passed through, in front
  type=age=DOUBLE            column types of features
  output=SCORE=DOUBLE        names and types of what is predicted
  rename, param, null-as-empty, language, batch-size, loader, verify, on-error, constraints,
  mounted-path, artifacts-destination, score-example
  table=T,view=V is two:  -C table=CUSTOMERS -C view=CHURN_OF_CUSTOMERS makes a view, too
`update` keeps the options that it is not given; -C view= takes one back.

predict: -I rows.json with a column for each parameter, at most 10,000 rows; or a file with
[{"table": "ML.CUSTOMERS"}] or [{"query": "SELECT …"}].

The connection: EXA_USER with EXA_PASSWORD or EXA_ACCESS_TOKEN; EXA_DSN=host/FINGERPRINT:port for
Exasol's own certificate, or EXA_SSL_TRUSTED_CA. pyexasol reports its use to Exasol unless
EXASOL_TELEMETRY_DISABLE=1 is set.

Needs pip install 'mlflow-bucketfs-plugin[sql]'. All about it: docs/user/deployments.md
"""
