"""The options of the pytest plugin, and where the tests keep their files.

Every option exists on the command line and as ini value. An argument of a fixture factory wins
over the command line, the command line over the ini value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_TIMEOUT_S = 180.0

_OPTIONS = {
    "mlflow_server": ("URL", "Let the fixture mlflow_server use the MLflow server at this URL"),
    "mlflow_server_host": (
        "ADDRESS",
        "Address of this machine that a started MLflow server listens on (default: 127.0.0.1)",
    ),
    "mlflow_server_timeout": (
        "SECONDS",
        f"How long a started MLflow server may take to answer (default: {_DEFAULT_TIMEOUT_S:g})",
    ),
}


@dataclass(frozen=True, kw_only=True)
class BucketFSTarget:
    """The bucket that the tests of a session store to.

    Attributes:
        uri: URI of the bucket, such as ``exa+bfs://127.0.0.1:43210/bfsdefault/default``.
        user: User for writing.
        password: Password of this user.
        settings: Further variables that a client needs, such as ``EXA_BUCKETFS_CA_BUNDLE``.
        backend: ``embedded`` for the fixture ``bucketfs_server``, ``onprem`` for an Exasol
            database; None for a BucketFS that the project itself named.
    """

    uri: str
    user: str
    password: str = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    backend: str | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process needs to write to the bucket."""
        credentials = {"EXA_BUCKETFS_USER": self.user, "EXA_BUCKETFS_PASSWORD": self.password}
        return {**self.settings, **credentials}


def add_options(parser: pytest.Parser) -> None:
    """Register the options with pytest."""
    group = parser.getgroup("mlflow-bucketfs", "MLflow on BucketFS")
    for name, (metavar, text) in _OPTIONS.items():
        group.addoption(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, help=text)
        parser.addini(name, text, default="")


def mlflow_server_option(config: pytest.Config) -> str | None:
    """Return the URL of the MLflow server to reuse, or None to start one."""
    return _value(config, "mlflow_server") or None


def mlflow_server_host_option(config: pytest.Config) -> str | None:
    """Return the address that a started MLflow server listens on, or None for the default."""
    return _value(config, "mlflow_server_host") or None


def mlflow_server_timeout_option(config: pytest.Config) -> float:
    """Return how long a server may take to answer, in seconds.

    Raises:
        pytest.UsageError: If the option is not a positive number.
    """
    value = _value(config, "mlflow_server_timeout")
    try:
        timeout_s = float(value or _DEFAULT_TIMEOUT_S)
    except ValueError:
        timeout_s = 0.0
    if not timeout_s > 0:  # nan is none
        raise pytest.UsageError(
            f"--mlflow-server-timeout (ini: mlflow_server_timeout) is a number of seconds, "
            f"not {value!r}"
        )
    return timeout_s


def _value(config: pytest.Config, name: str) -> str:
    value = config.getoption(name)
    return str(config.getini(name) if value is None else value)
