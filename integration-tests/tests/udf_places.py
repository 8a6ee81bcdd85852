"""Where the statements of ``docs/user/udfs.md`` can be executed: here, in the container, on Exasol.

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

from mlflow_bucketfs_testing import SlcContainer

from .udf_mock_database import MockDatabase

_RUNNER = Path(__file__).with_name("run_udf.py")
_MOCK = "exasol_udf_mock_python"


class Host:
    """This machine: each UDF is a fresh process, without a password.

    Args:
        mount: The directory that has the buckets; replace it to have a UDF see another one.
        folder: An empty directory for temporary files.
    """

    def __init__(self, mount: Path, folder: Path) -> None:
        self.mount = mount
        self._udf = folder / "udf.json"
        self.database = MockDatabase(self._run)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement of the page."""
        return self.database.execute(statement)

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine: they do."""

    def _run(self, udf: dict[str, Any]) -> dict[str, Any]:
        self._udf.write_text(json.dumps(udf), encoding="utf-8")
        return self._printed(self._run_file())

    def _run_file(self) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXA_", "MLFLOW_"))}
        return subprocess.run(
            [sys.executable, "-W", "ignore", _RUNNER, self._udf],
            env={**clean, "EXA_BUCKETFS_MOUNT_ROOT": str(self.mount)},
            cwd=self._udf.parent,  # where MLflow would keep records
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )

    @staticmethod
    def _printed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return printed


class Container(Host):
    """The exported container: each UDF is a fresh one, with a real /buckets and no network.

    Args:
        archive: The exported container.
        mount: The directory that is /buckets; replace it to have a UDF see another one.
        folder: An empty directory for temporary files.
    """

    def __init__(self, archive: Path, mount: Path, folder: Path) -> None:
        super().__init__(mount, folder)
        self._archive = archive
        self._reach: Sequence[str] = ()

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine, and nothing else."""
        self._reach = [url.removeprefix("http://") for url in urls]

    def _run_file(self) -> subprocess.CompletedProcess[str]:
        found = importlib.util.find_spec(_MOCK)
        assert found is not None
        assert found.submodule_search_locations is not None
        mock = next(iter(found.submodule_search_locations))
        return SlcContainer(self._archive, buckets=self.mount).run_python(
            _RUNNER.read_text(encoding="utf-8"),
            f"/udf/{self._udf.name}",
            mounts={f"/mock/{_MOCK}": mock, "/udf": self._udf.parent},
            path=["/mock"],
            reach=self._reach,
        )


class Exasol:
    """A real database.

    Args:
        connection: To a schema of its own; pyexasol's.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement of the page."""
        done = self._connection.execute(statement)
        rows: list[tuple[Any, ...]] = done.fetchall() if done.result_type == "resultSet" else []
        return rows

    def reaches(self, *urls: str) -> None:
        """Let UDFs reach servers of this machine: that is up to the network."""
