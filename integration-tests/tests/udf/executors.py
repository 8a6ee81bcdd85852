"""The executors of the pages' statements: a UDF client, or an Exasol database.

Each executes one statement at a time and returns its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import util
from pathlib import Path
from typing import Any

from mlflow_bucketfs_core import ConnectionSettings, mounted_path, udf_path
from mlflow_bucketfs_testing import UdfRunner
from mlflow_bucketfs_testing.udf.clients import Client

from .database import Database

_PACKAGES = Path(__file__).parents[3] / "packages"
_FORK_CLIENT = _PACKAGES / "mlflow-bucketfs-testing" / "tests" / "udf" / "fork_client.py"
# The modules that the scripts of the pages and their models import
_IMPORTS = ("mlflow.pyfunc", "mlflow.sklearn", "skops.io", "sklearn.linear_model")
# The mount of a database shows an upload after a delay; MLmodel is uploaded last.
_SEEN = """
CREATE OR REPLACE {language} SCALAR SCRIPT seen(model VARCHAR(2000)) RETURNS BOOLEAN AS
import os, time
def run(ctx):
    deadline = time.monotonic() + 60
    while not os.path.exists(ctx.model + "/MLmodel") and time.monotonic() < deadline:
        time.sleep(1)
    return os.path.exists(ctx.model + "/MLmodel")
"""


def forking_client() -> AbstractContextManager[Client]:
    """Return a context with the reference client, forked by a server that has imported MLflow."""
    # a file in the tests of another package cannot be imported by its name
    spec = util.spec_from_file_location("fork_client", _FORK_CLIENT)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client: AbstractContextManager[Client] = module.started(
        *_IMPORTS, env=without_settings(os.environ)
    )
    return client


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without settings of BucketFS and MLflow, like that of a UDF."""
    return {k: v for k, v in environment.items() if not k.startswith(("EXA_", "MLFLOW_"))}


class Runner:
    """An executor with a UDF client: each call of a script has its own process.

    Args:
        mount: directory with the buckets; as an attribute, it can be replaced by another one.
        client: function that returns the client, given addresses that scripts connect to.
    """

    def __init__(self, mount: Path, client: Callable[[Sequence[str]], str | Client]) -> None:
        self.mount = mount
        self.database = Database()
        self._client = client
        self._reach: Sequence[str] = ()

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement of the page."""
        with self._runner() as runner:
            return self.database.execute(statement, runner)

    def path(self, location: str) -> str:
        """Return the path at which UDFs see a model."""
        in_database = str(udf_path(location))
        if self._runner().sees_buckets:
            return in_database
        path = mounted_path(location, ConnectionSettings(mount_root=str(self.mount)))
        assert path == in_database.replace("/buckets", str(self.mount), 1)
        return path

    def allow(self, *urls: str) -> None:
        """Let UDFs in a container connect to these servers of this machine, and to no others."""
        self._reach = [url.removeprefix("http://") for url in urls]

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _runner(self) -> UdfRunner:
        return UdfRunner(self._client(self._reach), buckets=self.mount)


class Exasol:
    """An executor with a real database.

    Args:
        connection: connection of pyexasol, with its own schema.
        language: the alias of the container.
    """

    def __init__(self, connection: Any, language: str) -> None:
        self._connection = connection
        connection.execute(_SEEN.format(language=language))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement of the page."""
        done = self._connection.execute(statement)
        rows: list[tuple[Any, ...]] = done.fetchall() if done.result_type == "resultSet" else []
        return rows

    def path(self, location: str) -> str:
        """Wait until UDFs see a model, and return its path."""
        path = str(udf_path(location))
        seen = self._connection.execute("SELECT seen({model})", {"model": path})
        assert seen.fetchval(), f"not on the mount after a minute: {location}"
        return path

    def allow(self, *urls: str) -> None:
        """Do nothing: the network decides whether UDFs can connect to servers of this machine."""
