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
        text: as the database has it.
        metadata: the JSON in its comment; empty if it is not a deployment.
    """

    text: str
    metadata: dict[str, Any]

    @property
    def is_deployment(self) -> bool:
        """Whether it was made by this package."""
        return bool(self.metadata)


def list_scripts(database: Database, name: str | None = None) -> dict[str, Script]:
    """Return the scripts in the schema that the user may see, by name, or the one of a name."""
    rows = database.execute(
        "SELECT SCRIPT_NAME, SCRIPT_TEXT FROM SYS.EXA_ALL_SCRIPTS "
        "WHERE SCRIPT_SCHEMA = {schema} AND COALESCE({name}, SCRIPT_NAME) = SCRIPT_NAME",
        schema=database.target.schema,
        name=name,
    )
    return {str(found): Script(str(text), read_metadata(str(text))) for found, text in rows}


def find_script(database: Database, name: str) -> Script | None:
    """Return the script of a name, or None."""
    return list_scripts(database, name).get(name)


def require_deployment(database: Database, name: str) -> Script:
    """Return the deployment of a name.

    Raises:
        MlflowException: there is none, RESOURCE_DOES_NOT_EXIST, or another script,
            RESOURCE_CONFLICT.
    """
    found = find_script(database, name)
    if found is None:
        raise MlflowException(
            f"There is no deployment {name} in {database.target.schema}, or the user may not see "
            f"it. `mlflow deployments list` shows those that there are.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    if not found.is_deployment:
        raise MlflowException(
            f"The script {name} in {database.target.schema} is no deployment of MLflow: it is left "
            "as it is.",
            error_code=RESOURCE_CONFLICT,
        )
    return found


def has_view(database: Database, view: str) -> bool:
    """Return whether a view exists: ``SCHEMA.NAME``, as in statements."""
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
        MlflowException: there is none, RESOURCE_DOES_NOT_EXIST.
    """
    schema = database.target.schema
    found = database.execute(
        "SELECT COUNT(*) FROM SYS.EXA_SCHEMAS WHERE SCHEMA_NAME = {schema}", schema=schema
    )
    if not int(found[0][0]):
        raise MlflowException(
            f"There is no schema {schema} in Exasol at {database.target.address}: "
            f"CREATE SCHEMA {sql_object_name((schema,))};",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )


def require_language(database: Database, language: str) -> None:
    """Raise unless the database has a script language.

    Raises:
        MlflowException: it has none of this alias, INVALID_PARAMETER_VALUE.
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
        "to BucketFS, put its path in the place of CONTAINER, and let an administrator run\n"
        f"ALTER SYSTEM SET SCRIPT_LANGUAGES='{added}';",
        error_code=INVALID_PARAMETER_VALUE,
    )


def require_model(database: Database, folder: str, language: str) -> None:
    """Raise unless the database sees a model.

    A script of this transaction looks for it, which nobody else ever sees.

    Args:
        database: the session.
        folder: the model's folder, below ``/buckets``.
        language: alias of the script's language.

    Raises:
        MlflowException: it does not, RESOURCE_DOES_NOT_EXIST, or refuses the script.
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
