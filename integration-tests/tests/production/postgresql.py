"""The distribution's PostgreSQL, during a test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from doc_examples.substitutes import free_port
from mlflow_bucketfs_testing.process_session import ProcessSession
from typing_extensions import Self

INSTALL = "apt-get install postgresql"
_START_S = 60.0


def program_directory() -> Path | None:
    """Return the directory of PostgreSQL's programs, which is not on Debian's path."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max(
        (each.parent for each in found), key=lambda bin_: int(bin_.parent.name), default=None
    )


class PostgreSQL:
    """A server on a free port of loopback, with passwords for TCP and without for its socket.

    Args:
        programs: directory of its programs, see `program_directory`.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cleanup.close()

    @property
    def as_administrator(self) -> dict[str, str]:
        """The variables that let PostgreSQL's programs act as the database's administrator."""
        return {
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": str(self._directory),
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
        }

    def _start(self, cleanup: ExitStack) -> None:
        # not below pytest's directory, which only the user of the tests can read
        self._directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
        cleanup.callback(shutil.rmtree, self._directory, ignore_errors=True)
        data, log = self._directory / "data", self._directory / "log"
        self.port = free_port()
        # PostgreSQL refuses to run as root
        user = "postgres" if os.geteuid() == 0 else ""
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        if user:
            account = pwd.getpwnam(user)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        initdb = [self._programs / "initdb", "--pgdata", data, "--username=postgres", "--no-sync"]
        authentication = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run(
            [*prefix, *initdb, *authentication], check=True, cwd="/", stdout=subprocess.DEVNULL
        )
        settings = {
            "listen_addresses": "localhost",
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        session = ProcessSession(
            [*prefix, str(self._programs / "postgres"), "-D", str(data), *options],
            env={**os.environ, "LC_ALL": "C"},
            directory=self._directory,
            log_path=log,
            abandoned_directory=self._directory,
        )
        cleanup.callback(session.end, timeout_s=20)
        deadline = time.monotonic() + _START_S
        while subprocess.run(
            ["pg_isready", "--quiet"], env=self.as_administrator, check=False
        ).returncode:
            if session.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.2)
