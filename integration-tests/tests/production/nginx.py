"""The distribution's nginx in front of a server, during a test."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_bucketfs_testing.process_session import ProcessSession

INSTALL = "apt-get install nginx"
_START_S = 30.0

# Debian's nginx.conf around a server block, without its directories.
_CONFIGURATION = """
{user}
pid nginx.pid;
error_log stderr;
daemon off;
events {{}}
http {{
    access_log off;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{server}
}}
"""


def program() -> str | None:
    """Return the path of nginx; only root has its directory on the path."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def running(program: str, server: str, port: int) -> Iterator[Path]:
    """Run nginx with a server block that listens on a port; yield its directory.

    Relative paths in the block are relative to this directory.
    """
    directory = Path(tempfile.mkdtemp(prefix="nginx-"))
    # nginx as root would change to a user that cannot read our directory
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(user=user, server=server), encoding="utf-8")
    log = directory / "log"
    session = ProcessSession(
        [program, "-p", str(directory), "-c", str(configuration), "-e", "stderr"],
        env={"PATH": os.defpath},
        directory=directory,
        log_path=log,
        abandoned_directory=directory,
    )
    try:
        deadline = time.monotonic() + _START_S
        while not session.listens_on(port):
            if session.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield directory
    finally:
        session.end(timeout_s=10)
        shutil.rmtree(directory, ignore_errors=True)
