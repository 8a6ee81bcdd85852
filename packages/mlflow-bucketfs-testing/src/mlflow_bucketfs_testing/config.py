"""The options of the pytest plugin, and the bucket that the tests store to.

Every option exists on the command line and as ini value, with the plugin's name as its prefix,
because pytest has one namespace for all plugins. An argument of a fixture factory overrides the
command line, and the command line overrides the ini value.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_bucketfs_testing import CONTAINER_CLIENT, REFERENCE_CLIENT
from mlflow_bucketfs_testing.errors import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEFAULT_TIMEOUT_S = 180.0

_PREFIX = "mlflow_bucketfs_"
_MLFLOW_SERVER = "mlflow_server"
# Without the prefix, because Exasol's projects for MLflow use this name
_MLFLOW_SERVER_OPTION = "--mlflow-server"
_OPTIONS = {
    _MLFLOW_SERVER: ("URL", "Let the fixture mlflow_server use the MLflow server at this URL"),
    "mlflow_server_host": (
        "ADDRESS",
        "Address of this machine that a started MLflow server listens on (default: 127.0.0.1)",
    ),
    "mlflow_server_timeout": (
        "SECONDS",
        f"How long a started MLflow server may take to answer (default: {_DEFAULT_TIMEOUT_S:g})",
    ),
    "slc_archive": (
        "FILE",
        "Run the fixture slc_container in this exported script-language container (.tar.gz)",
    ),
    "udf_client": (
        "CLIENT",
        "Client for udf_runner: reference (default), slc:FILE (a container), or an exaudfclient",
    ),
}


@dataclass(frozen=True, kw_only=True)
class BucketFSTarget:
    """The bucket that the tests of a session store to.

    Attributes:
        uri: URI of the bucket, such as ``exa+bfs://127.0.0.1:43210/bfsdefault/default``.
        user: user for writing.
        password: password of this user; pytest does not show it.
        settings: further variables that a client needs, such as ``EXA_BUCKETFS_CA_BUNDLE``.
        backend: ``embedded`` for the fixture ``bucketfs_server``, ``onprem`` for an Exasol
            database; None for a target that the project itself defines.
    """

    uri: str
    user: str
    password: str = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    backend: str | None = None

    def __post_init__(self) -> None:
        """Mask the password in every ``repr``."""
        object.__setattr__(self, "password", Secret(self.password))

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process needs to write to the bucket."""
        credentials = {"EXA_BUCKETFS_USER": self.user, "EXA_BUCKETFS_PASSWORD": self.password}
        return {**self.settings, **credentials}


def add_options(parser: pytest.Parser) -> None:
    """Register with pytest all ini values, and all options but ``--mlflow-server``."""
    for name, (_, text) in _OPTIONS.items():
        parser.addini(f"{_PREFIX}{name}", text, default="")
        if name != _MLFLOW_SERVER:
            _add_option(parser, f"--{_PREFIX}{name}".replace("_", "-"), name)


def is_mlflow_server_given(args: Sequence[str | os.PathLike[str]]) -> bool:
    """Return whether the command line has ``--mlflow-server``, of this plugin or another."""
    return any(os.fspath(arg).partition("=")[0] == _MLFLOW_SERVER_OPTION for arg in args)


def add_mlflow_server_option(parser: pytest.Parser, args: Sequence[str | os.PathLike[str]]) -> None:
    """Register ``--mlflow-server``, unless an option of this name exists.

    Following Exasol's guide, projects such as exasol/mlflow-plugin define it in their conftest. So
    it must be registered after the conftests are loaded, and only if it is used: a conftest that
    pytest loads during collection may still define it.

    Args:
        parser: pytest's parser.
        args: the command line, which may have options that the parser requires.
    """
    probe = f"{_MLFLOW_SERVER_OPTION}=x"
    try:
        _, unknown = parser.parse_known_and_unknown_args([probe, *args])
    except pytest.UsageError:
        # The project's option does not accept x, or pytest will report a wrong command line
        return
    if probe in unknown:
        _add_option(parser, _MLFLOW_SERVER_OPTION, _MLFLOW_SERVER)


def mlflow_server_option(config: pytest.Config) -> str | None:
    """Return the URL of the MLflow server to reuse, or None to start one."""
    return _value(config, _MLFLOW_SERVER) or None


def mlflow_server_host_option(config: pytest.Config) -> str | None:
    """Return the address that a started MLflow server listens on, or None for the default."""
    return _value(config, "mlflow_server_host") or None


def mlflow_server_timeout_option(config: pytest.Config) -> float:
    """Return how long a started server may take to answer, in seconds.

    Raises:
        pytest.UsageError: the option is not a positive number.
    """
    value = _value(config, "mlflow_server_timeout")
    try:
        timeout_s = float(value or _DEFAULT_TIMEOUT_S)
    except ValueError:
        timeout_s = 0.0
    if not timeout_s > 0:  # false for nan as well
        raise pytest.UsageError(
            "--mlflow-bucketfs-mlflow-server-timeout (ini: mlflow_bucketfs_mlflow_server_timeout) "
            f"must be a positive number of seconds, not {value!r}"
        )
    return timeout_s


def slc_archive_option(config: pytest.Config) -> Path | None:
    """Return the exported container from the command line or the ini value, or None."""
    given = _value(config, "slc_archive")
    return Path(config.invocation_params.dir, given) if given else None


def udf_client_option(config: pytest.Config) -> str:
    """Return the UDF client from the command line or the ini value; make its path absolute."""
    given = _value(config, "udf_client") or REFERENCE_CLIENT
    if given == REFERENCE_CLIENT:
        return given
    kind = CONTAINER_CLIENT if given.startswith(CONTAINER_CLIENT) else ""
    return f"{kind}{Path(config.invocation_params.dir, given.removeprefix(kind))}"


def _add_option(parser: pytest.Parser, option: str, name: str) -> None:
    metavar, text = _OPTIONS[name]
    group = parser.getgroup("mlflow-bucketfs", "MLflow on BucketFS")
    group.addoption(option, dest=f"{_PREFIX}{name}", metavar=metavar, help=text)


def _value(config: pytest.Config, name: str) -> str:
    value = config.getoption(f"{_PREFIX}{name}", None)  # absent if the project has the option
    return str(config.getini(f"{_PREFIX}{name}") if value is None else value)
