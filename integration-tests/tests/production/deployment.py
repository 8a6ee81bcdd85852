"""The deployment of ``docs/user/production.md``, on free ports of this machine."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from doc_examples.substitutes import free_port
from mlflow_bucketfs_testing import BucketFSServer, MlflowServerProcess

from . import page
from .postgresql import PostgreSQL

DATABASE_PASSWORD = "pg-secret-6b1f"
WRITE_PASSWORD = "bfs-secret-93ac"


def without_settings() -> dict[str, str]:
    """Return the environment without variables for MLflow, BucketFS or PostgreSQL."""
    ours = ("EXA_", "MLFLOW_", "PG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass
class Deployment:
    """Database, BucketFS, and the server's command and variables.

    Attributes:
        postgresql: the server of the database.
        bucketfs: the server of the files, with HTTPS.
        directory: working directory of the commands.
        database: name of the database.
        folder: path in the bucket.
        port: port of the MLflow server.
    """

    postgresql: PostgreSQL
    bucketfs: BucketFSServer
    directory: Path
    database: str = "mlflow"
    folder: str = "mlflow"
    port: int = field(default_factory=free_port)

    @property
    def stand_ins(self) -> dict[str, str]:
        """The replacements for the page's addresses and numbers."""
        return {
            page.DATABASE: f"localhost:{self.postgresql.port}/{self.database}",
            page.LOCATION: self.bucketfs.tls_uri(path=self.folder),
            page.SERVER_PORT: str(self.port),
            page.WORKERS: "--workers 2",
            page.AGE: "",
        }

    @property
    def environment_file(self) -> str:
        """The environment file with the values of this deployment."""
        return page.environment_file(
            {
                "PGPASSWORD": DATABASE_PASSWORD,
                "EXA_BUCKETFS_PASSWORD": WRITE_PASSWORD,
                "EXA_BUCKETFS_CERT_FINGERPRINT": self.bucketfs.certificate_fingerprint,
                "EXA_BUCKETFS_ALLOWED_HOSTS": f"127.0.0.1:{self.bucketfs.tls_port}",
            }
        )

    @property
    def uri(self) -> str:
        """The MLflow server's URI, with the host name that ``mlflow gc`` uses on the page."""
        return f"http://localhost:{self.port}"

    def server(self) -> MlflowServerProcess:
        """Return the server of the page's unit, not yet started."""
        _, command, *arguments = page.service("MLflow tracking server", self.stand_ins)
        assert command == "server"
        foreign = dict.fromkeys(os.environ.keys() - without_settings().keys())
        # as systemd reads the file
        variables = dict(word.split("=", 1) for word in shlex.split(self.environment_file))
        # the page's arguments follow those of the class, and override them
        return MlflowServerProcess(
            port=self.port, extra_args=arguments, env={**foreign, **variables}
        )

    def run(self, command: list[str]) -> str:
        """Run a command with the environment that the page sets, and return its output."""
        environment = self.directory / "environment"
        environment.write_text(self.environment_file, encoding="utf-8")
        prepare = page.block("bash", "set -a", {page.ENVIRONMENT_FILE: str(environment)})
        path = [str(Path(sys.executable).parent), self.postgresql.as_administrator["PATH"]]
        completed = subprocess.run(
            ["bash", "-ec", f'{prepare}exec "$@"', "bash", *command],
            env={**without_settings(), "PATH": os.pathsep.join(path)},
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    def create_user(self) -> None:
        """Create the database's user with the page's command, and enter the password twice."""
        self._administer("createuser", f"{DATABASE_PASSWORD}\n" * 2)

    def create_database(self) -> None:
        """Create the database of this deployment with the page's command."""
        self._administer("createdb", "")

    def _administer(self, program: str, typed: str) -> None:
        (command,) = (line for line in page.commands("createuser", {}) if line[0] == program)
        if program == "createdb":
            command[-1] = self.database
        # without a terminal, the password is read from standard input
        subprocess.run(
            command,
            env=self.postgresql.as_administrator,
            input=typed,
            text=True,
            check=True,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def stored(self, identifier: str) -> dict[str, str]:
        """Return the hashes of the files of a run or model in BucketFS."""
        keys = [key for key in self.bucketfs.keys() if f"/{identifier}/" in key]
        contents = {key.rpartition("/")[2]: self.bucketfs.read(key) for key in keys}
        return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
