"""The deployments of a schema, and the checks before one is created."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow_bucketfs_core.settings import DEFAULT_MOUNT_ROOT

from mlflow_bucketfs_plugin.scoring.names import parse_object_name, sql_object_name
from mlflow_bucketfs_plugin.scoring.script import read_metadata

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin.scoring.database import Database

_PROBE = """\
CREATE {language} SCALAR SCRIPT {name}() RETURNS VARCHAR(2000000) UTF8 AS
import os

def run(ctx):
    path, root = {path!r}, os.environ.get("EXA_BUCKETFS_MOUNT_ROOT", {mount_root!r})
    while path.startswith({mount_root!r}) and not os.path.exists(root + path[{skipped}:]):
        path = os.path.dirname(path)
    return path
"""


@dataclass(frozen=True)
class Script:
    """A script of the schema.

    Attributes:
        text: its ``CREATE`` statement, as the database stores it.
        metadata: the JSON in its comment; empty if it is not a deployment.
    """

    text: str
    metadata: dict[str, Any]

    @property
    def is_deployment(self) -> bool:
        """Whether this package created it."""
        return bool(self.metadata)


def list_scripts(database: Database, name: str | None = None) -> dict[str, Script]:
    """Return the visible scripts of the schema by name; with ``name``, at most this one."""
    rows = database.execute(
        "SELECT SCRIPT_NAME, SCRIPT_TEXT FROM SYS.EXA_ALL_SCRIPTS "
        "WHERE SCRIPT_SCHEMA = {schema} AND COALESCE({name}, SCRIPT_NAME) = SCRIPT_NAME",
        schema=database.target.schema,
        name=name,
    )
    return {str(found): Script(str(text), read_metadata(str(text))) for found, text in rows}


def find_script(database: Database, name: str) -> Script | None:
    """Return the script with this name, or None."""
    return list_scripts(database, name).get(name)


def require_deployment(database: Database, name: str) -> Script:
    """Return the deployment with this name.

    Raises:
        MlflowException: it does not exist (RESOURCE_DOES_NOT_EXIST), or the script is not a
            deployment (RESOURCE_CONFLICT).
    """
    found = find_script(database, name)
    if found is None:
        raise MlflowException(
            f"There is no deployment {name} in {database.target.schema}, or the user may not see "
            f"it. `mlflow deployments list` shows the existing deployments.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    if not found.is_deployment:
        raise MlflowException(
            f"The script {name} in {database.target.schema} is not a deployment of MLflow, and was "
            "not changed.",
            error_code=RESOURCE_CONFLICT,
        )
    return found


def has_view(database: Database, view: str) -> bool:
    """Return whether a view exists, given as ``SCHEMA.NAME`` in SQL's notation."""
    schema, name = parse_object_name(view, "view")
    found = database.execute(
        "SELECT COUNT(*) FROM SYS.EXA_ALL_VIEWS "
        "WHERE VIEW_SCHEMA = {schema} AND VIEW_NAME = {name}",
        schema=schema,
        name=name,
    )
    return bool(int(found[0][0]))


def require_schema(database: Database) -> None:
    """Raise unless the target's schema exists.

    Raises:
        MlflowException: it does not exist (RESOURCE_DOES_NOT_EXIST).
    """
    schema = database.target.schema
    found = database.execute(
        "SELECT COUNT(*) FROM SYS.EXA_SCHEMAS WHERE SCHEMA_NAME = {schema}", schema=schema
    )
    if not int(found[0][0]):
        raise MlflowException(
            f"Exasol at {database.target.address} has no schema {schema}. Create it: "
            f"CREATE SCHEMA {sql_object_name((schema,))};",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )


def require_language(database: Database, language: str) -> None:
    """Raise unless the database has a script language with this alias.

    Raises:
        MlflowException: the alias does not exist (INVALID_PARAMETER_VALUE).
    """
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
        "to BucketFS, replace CONTAINER by its path, and ask an administrator to run\n"
        f"ALTER SYSTEM SET SCRIPT_LANGUAGES='{added}';",
        error_code=INVALID_PARAMETER_VALUE,
    )


def require_model(database: Database, folder: str, language: str) -> None:
    """Raise unless UDFs in the database see a model's folder.

    Creates, runs and drops a script that looks for it, within the open transaction, so that other
    sessions do not see this script.

    Args:
        database: the connection.
        folder: absolute path of the model's folder, such as ``/buckets/bfsdefault/default/m``.
        language: alias of the script's language.

    Raises:
        MlflowException: UDFs do not see the model (RESOURCE_DOES_NOT_EXIST), or the database
            refuses the script.
    """
    path = f"{folder}/MLmodel"
    probe = database.target.qualified(f"MLFLOW_PROBE_{secrets.token_hex(8).upper()}")
    database.execute(
        _PROBE.format(
            language=language,
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
            f"the database does not mount the bucket {bucket}. A private bucket is mounted only "
            "for users with a connection to it. Otherwise, check service and bucket in the "
            "model's URI, and whether it was logged to another cluster."
        )
    else:
        reason = (
            f"the database sees {seen}, and nothing below it on this path. A fresh upload may "
            "not have reached the node yet. Otherwise, the model was moved or deleted, or logged "
            "to another cluster."
        )
    raise MlflowException(
        f"The model is not at {path}: {reason} Nothing was changed.",
        error_code=RESOURCE_DOES_NOT_EXIST,
    )
