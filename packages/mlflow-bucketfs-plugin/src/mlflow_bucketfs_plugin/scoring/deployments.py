"""The target ``exasol`` of ``mlflow deployments``: models as scripts in a schema.

MLflow loads this module for every command that names the target, and requires ``run_local``,
``target_help`` and exactly one client class in it. The metadata of a deployment is stored only in
a comment of its script.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    NOT_IMPLEMENTED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_CONFLICT,
)

from mlflow_bucketfs_plugin.mlflow_errors import mlflow_errors
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.catalogue import (
    find_script,
    has_view,
    list_scripts,
    require_deployment,
    require_language,
    require_model,
    require_schema,
)
from mlflow_bucketfs_plugin.scoring.cli import options_from_config
from mlflow_bucketfs_plugin.scoring.database import Database, import_pyexasol
from mlflow_bucketfs_plugin.scoring.names import (
    parse_identifier,
    parse_object_name,
    sql_object_name,
)
from mlflow_bucketfs_plugin.scoring.script import ScriptColumn, scoring_script
from mlflow_bucketfs_plugin.scoring.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from mlflow_bucketfs_plugin.scoring.script import ScoringScript

_FLAVOR = "python_function"


class ExasolDeploymentClient(BaseDeploymentClient):
    """Client that deploys models as scripts in one schema; ``target_help`` returns a guide.

    Each method makes its changes in one transaction of a new session.

    Args:
        target_uri: ``exasol://host[:port]/SCHEMA``.

    Raises:
        MlflowException: the URI is malformed.
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
            name: the script's name, without a schema.
            model_uri: see :func:`~mlflow_bucketfs_plugin.scoring.scoring_script`.
            flavor: ``python_function`` or None.
            config: options of ``mlflow-bucketfs sql`` without the dashes; lists are separated by
                commas.
            endpoint: not supported.

        Returns:
            The same as :meth:`get_deployment`.

        Raises:
            MlflowException: with MLflow's error codes; nothing was created, unless the message
                states that this is not known.
        """
        _refuse(flavor, endpoint)
        import_pyexasol()  # if it is missing, report that before the model is read
        with _mlflow_errors():
            made = self._make(name, model_uri, dict(config or {}))
        with Database(self._target) as database:
            stored = _stored_name(name)
            if (found := find_script(database, stored)) is not None:
                what = (
                    f"The deployment {name} exists already, of {found.metadata['model']}: "
                    f"`mlflow deployments update` replaces its model."
                    if found.is_deployment
                    else f"The script {name} in {self._target.schema} exists already, and is not a "
                    "deployment of MLflow: choose another name."
                )
                raise MlflowException(what, error_code=RESOURCE_ALREADY_EXISTS)
            # without OR REPLACE, because a script may exist that the user may not see
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
        """Replace the model of a deployment, to promote a version or to roll back.

        Args:
            name: the script's name.
            model_uri: the new model. None resolves the deployed URI again, such as an alias that
                was moved.
            flavor: ``python_function`` or None.
            config: changed options. The others are kept; an empty value removes one.
            endpoint: not supported.

        Returns:
            The same as :meth:`get_deployment`.

        Raises:
            MlflowException: with MLflow's error codes; the deployment was not changed, unless the
                message states that this is not known.
        """
        _refuse(flavor, endpoint)
        stored = _stored_name(name)
        with Database(self._target) as database:
            found = require_deployment(database, stored)
        before = found.metadata
        merged = {**_text_mapping(before.get("config")), **(config or {})}
        with _mlflow_errors():
            made = self._make(
                name,
                model_uri or str(before["requested"]),
                {option: value for option, value in merged.items() if value},
            )
        with Database(self._target) as database:
            if require_deployment(database, stored).text != found.text:
                raise MlflowException(
                    f"The deployment {name} was changed by another session meanwhile, and was not "
                    "updated. Look at it with `mlflow deployments get`, and update it again.",
                    error_code=RESOURCE_CONFLICT,
                )
            self._install(database, made, made.text, earlier_view=_view_of(before))
        return _description(stored, made.metadata)

    def delete_deployment(
        self, name: str, config: Mapping[str, str] | None = None, endpoint: str | None = None
    ) -> None:
        """Drop a deployment's script and view; a missing deployment is not an error.

        Args:
            name: the script's name.
            config: not supported.
            endpoint: not supported.

        Raises:
            MlflowException: the script is not a deployment, or the user may not drop it.
        """
        _refuse(None, endpoint)
        if config:
            raise _invalid_error(f"delete does not support options: {', '.join(config)}.")
        with Database(self._target) as database:
            stored = _stored_name(name)
            if find_script(database, stored) is None:
                return
            found = require_deployment(database, stored)
            if view := _view_of(found.metadata):
                database.execute(f"DROP VIEW IF EXISTS {view}")
            database.execute(f"DROP SCRIPT {self._target.qualified(stored)}")
            database.commit()

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return the deployments in the schema that the user may see.

        Args:
            endpoint: not supported.

        Raises:
            MlflowException: the database cannot be reached, or refuses the login.
        """
        _refuse(None, endpoint)
        with Database(self._target) as database:
            return [
                _description(name, found.metadata)
                for name, found in sorted(list_scripts(database).items())
                if found.is_deployment
            ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return a deployment's name, flavor and metadata, such as its model and options.

        Args:
            name: the script's name.
            endpoint: not supported.

        Raises:
            MlflowException: the deployment does not exist.
        """
        _refuse(None, endpoint)
        stored = _stored_name(name)
        with Database(self._target) as database:
            return _description(stored, require_deployment(database, stored).metadata)

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> pd.DataFrame:
        """Score rows in the database.

        Args:
            deployment_name: the script's name.
            inputs: a data frame with a column for each parameter of the script, which is sent as a
                table of literals. Or rows in the database, with columns named as the parameters:
                ``{"table": "SCHEMA.TABLE"}`` or ``{"query": "SELECT …"}``, also as a data frame
                with one row.
            endpoint: not supported.

        Returns:
            The emitted columns: keys, then predictions. A DECIMAL without decimals is an int, or
            text beyond 64 bits, because JSON would round it.

        Raises:
            MlflowException: the deployment does not exist, a value does not fit its parameter, or
                scoring failed.
        """
        from mlflow_bucketfs_plugin.scoring import rows  # noqa: PLC0415 -- pandas, only here

        _refuse(None, endpoint)
        if deployment_name is None:
            raise _invalid_error("predict needs the name of a deployment: --name.")
        stored = _stored_name(deployment_name)
        with Database(self._target) as database:
            metadata = require_deployment(database, stored).metadata
            columns = [ScriptColumn(name=n, sql_type=t) for n, t in metadata["inputs"]]
            with _mlflow_errors():
                source, arguments = rows.select_source(inputs, columns)
            types, scored = database.query(
                f"SELECT {self._target.qualified(stored)}({', '.join(arguments)})\n"
                f"FROM {source} GROUP BY IPROC()"
            )
        return rows.result_frame(types, scored)

    def _make(self, name: str, model_uri: str, config: dict[str, str]) -> ScoringScript:
        if view := config.get("view"):
            parts = parse_object_name(view, "view")
            if len(parts) == 1:
                config = {**config, "view": self._target.qualified(*parts)}
        return scoring_script(
            model_uri,
            self._target.qualified(_stored_name(name)),
            options_from_config(config),
            notes={"config": config},
        )

    def _install(
        self, database: Database, made: ScoringScript, text: str, *, earlier_view: str | None
    ) -> None:
        require_schema(database)
        require_language(database, made.language)
        require_model(database, made.spec.model, made.language)
        database.execute(text.rstrip().removesuffix("\n/"))
        view = _view_of(made.metadata)
        if earlier_view and earlier_view != view:
            database.execute(f"DROP VIEW IF EXISTS {earlier_view}")
        if view:
            if view != earlier_view and has_view(database, view):
                raise MlflowException(
                    f"The view {view} exists already, and is not this deployment's: choose "
                    "another name with -C view=…",
                    error_code=RESOURCE_ALREADY_EXISTS,
                )
            database.execute(made.select.rstrip(";"))
        database.commit()


def _view_of(metadata: Mapping[str, Any]) -> str | None:
    view = _text_mapping(metadata.get("config")).get("view")
    # parsed again, because any user who may create scripts can write such a comment
    with _mlflow_errors():
        return sql_object_name(parse_object_name(view, "view")) if view else None


def _text_mapping(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _description(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "flavor": _FLAVOR, **metadata}


def _stored_name(name: str) -> str:
    with _mlflow_errors():
        return parse_identifier(name, "--name")


def _refuse(flavor: str | None, endpoint: str | None) -> None:
    if flavor not in {None, _FLAVOR}:
        raise _invalid_error(
            f"The flavor {flavor!r} cannot be deployed: models are scored as {_FLAVOR}. "
            "Omit --flavor."
        )
    if endpoint is not None:
        raise MlflowException(
            "The target exasol has no endpoints: use privileges in the database instead "
            "(GRANT EXECUTE).",
            error_code=NOT_IMPLEMENTED,
        )


def _invalid_error(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    with mlflow_errors():
        try:
            yield
        except (ScriptError, OSError) as error:
            raise _invalid_error(str(error)) from error


def run_local(
    name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, str] | None = None
) -> NoReturn:
    """Raise, because the target cannot run a model locally.

    Raises:
        MlflowException: always, with commands that run a model without a database.
    """
    del name, flavor, config
    raise MlflowException(
        "The target exasol needs a database. To run a model without one: "
        f"mlflow-bucketfs sql {model_uri} --name NAME > script.sql, then "
        "mlflow-bucketfs-testing udf script.sql --input rows.csv",
        error_code=NOT_IMPLEMENTED,
    )


def target_help() -> str:
    """Return a short guide to the target."""
    return _HELP


_HELP = """\
Deploys models as scripts in a schema of Exasol, which score rows in SQL.

  export EXA_USER=… EXA_PASSWORD=…
  mlflow deployments create -t exasol://db.example.com:8563/ML --name CHURN \\
      -m models:/churn@champion -C key=customer_id
  SELECT ML.CHURN(customer_id, age, income) FROM customers GROUP BY IPROC();

Target: exasol://HOST[:PORT]/SCHEMA. The model must be in BucketFS (exa+bfs://…, exa+bfss://…).
An alias is resolved when the script is made: `update` promotes another version, or rolls back.

Options, -C NAME=VALUE, are those of `mlflow-bucketfs sql --help`; lists are separated by commas:
  key=customer_id,day DATE   columns to emit unchanged, before the predictions
  type=age=DOUBLE            column types of features
  output=SCORE=DOUBLE        names and types of the predictions
  rename, param, null-as-empty, language, batch-size, loader, verify, on-error, constraints,
  mounted-path, artifacts-destination, score-example
Two of them create a view: -C table=CUSTOMERS -C view=CHURN_OF_CUSTOMERS
`update` keeps the other options; an empty value, such as -C view=, removes one.

predict: -I rows.json with a column for each parameter, at most 10,000 rows; or a file with
[{"table": "ML.CUSTOMERS"}] or [{"query": "SELECT …"}].

The connection: EXA_USER with EXA_PASSWORD or EXA_ACCESS_TOKEN; EXA_DSN=host/FINGERPRINT:port for
Exasol's own certificate, or EXA_SSL_TRUSTED_CA. pyexasol reports its use to Exasol unless
EXASOL_TELEMETRY_DISABLE=1 is set.

Needs pip install 'mlflow-bucketfs-plugin[sql]'. The guide:
https://mlflow-bucketfs.readthedocs.io/en/latest/user/deployments.html
"""
