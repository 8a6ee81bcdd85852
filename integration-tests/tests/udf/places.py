"""Where the pages' statements can be executed: on this machine, in the container, on Exasol.

Each place executes one statement at a time and returns its rows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_bucketfs_core import ConnectionSettings, mounted_path, udf_path
from mlflow_bucketfs_testing import SlcContainer

from .mock_database import MockDatabase

_RUNNER = Path(__file__).with_name("run_udf.py")
_PYTHON = [sys.executable, "-W", "ignore", str(_RUNNER)]
_MOCK = "exasol_udf_mock_python"
# The mount of an Exasol follows an upload after a while; MLmodel is uploaded last.
_SEEN = """
CREATE OR REPLACE {language} SCALAR SCRIPT seen(model VARCHAR(2000)) RETURNS BOOLEAN AS
import os, time
def run(ctx):
    deadline = time.monotonic() + 60
    while not os.path.exists(ctx.model + "/MLmodel") and time.monotonic() < deadline:
        time.sleep(1)
    return os.path.exists(ctx.model + "/MLmodel")
"""


class UdfError(Exception):
    """A script failed; the message has the end of its traceback."""


class Host:
    """This machine: each UDF is a fresh process, without a password.

    Args:
        mount: the directory that has the buckets; replace it to have a UDF see another one.
        folder: an empty directory for temporary files.
    """

    def __init__(self, mount: Path, folder: Path) -> None:
        self.mount = mount
        self._udf = folder / "udf.json"
        self.database = MockDatabase(self._run)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement of the page."""
        return self.database.execute(statement)

    def path(self, location: str) -> str:
        """Return the path at which UDFs see a model."""
        path = mounted_path(location, ConnectionSettings(mount_root=str(self.mount)))
        assert path == str(udf_path(location)).replace("/buckets", str(self.mount), 1)
        return path

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine: they do."""

    def _run(self, udf: dict[str, Any]) -> dict[str, Any]:
        self._udf.write_text(json.dumps(udf), encoding="utf-8")
        printed: dict[str, Any] = json.loads(self._run_file().splitlines()[-1])
        return printed

    def _run_file(self) -> str:
        done = subprocess.run(
            [*_PYTHON, self._udf],
            env={**_clean_environment(), **self._environment()},
            cwd=self._udf.parent,  # where MLflow would keep records
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {"EXA_BUCKETFS_MOUNT_ROOT": str(self.mount)}


class UdfProcesses:
    """Start a process for each UDF by a fork, with all imports done: 0.5 s instead of 5 s."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            _PYTHON,
            env=_clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, file: Path, environment: dict[str, str]) -> str:
        """Run a UDF's file and return what it prints.

        Raises:
            UdfError: it failed.
        """
        assert self._server.stdin
        assert self._server.stdout
        printed, errors = file.with_name("stdout"), file.with_name("stderr")
        request = {
            "file": str(file),
            "environment": environment,
            "stdout": str(printed),
            "stderr": str(errors),
        }
        print(json.dumps(request), file=self._server.stdin, flush=True)
        if int(self._server.stdout.readline()):
            raise UdfError(errors.read_text(encoding="utf-8")[-4000:])
        return printed.read_text(encoding="utf-8")

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


class ForkingHost(Host):
    """This machine: each UDF is a fork of a process that has imported MLflow already.

    Args:
        mount: the directory that has the buckets; replace it to have a UDF see another one.
        folder: an empty directory for temporary files.
        processes: starts the forks.
    """

    def __init__(self, mount: Path, folder: Path, processes: UdfProcesses) -> None:
        super().__init__(mount, folder)
        self._processes = processes

    def _run_file(self) -> str:
        return self._processes.run(self._udf, self._environment())


class Container(Host):
    """The exported container: each UDF is a fresh one, with a real /buckets and no network.

    Args:
        archive: the exported container.
        mount: the directory that is /buckets; replace it to have a UDF see another one.
        folder: an empty directory for temporary files.
    """

    def __init__(self, archive: Path, mount: Path, folder: Path) -> None:
        super().__init__(mount, folder)
        self._archive = archive
        self._reach: Sequence[str] = ()

    def path(self, location: str) -> str:
        """Return the path at which UDFs see a model."""
        return str(udf_path(location))

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine, and nothing else."""
        self._reach = [url.removeprefix("http://") for url in urls]

    def _run_file(self) -> str:
        found = importlib.util.find_spec(_MOCK)
        assert found is not None
        assert found.submodule_search_locations is not None
        mock = next(iter(found.submodule_search_locations))
        done = SlcContainer(self._archive, buckets=self.mount).run_python(
            _RUNNER.read_text(encoding="utf-8"),
            f"/udf/{self._udf.name}",
            mounts={f"/mock/{_MOCK}": mock, "/udf": self._udf.parent},
            path=["/mock"],
            reach=self._reach,
        )
        return done.stdout


class Exasol:
    """A real database.

    Args:
        connection: to a schema of its own; pyexasol's.
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
        """Return the path at which UDFs see a model, once they do."""
        path = str(udf_path(location))
        seen = self._connection.execute("SELECT seen({model})", {"model": path})
        assert seen.fetchval(), f"not on the mount after a minute: {location}"
        return path

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine: that is up to the network."""


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
