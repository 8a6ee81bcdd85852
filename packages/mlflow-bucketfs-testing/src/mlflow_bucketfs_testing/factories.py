"""Factories of fixtures, for projects that need servers other than the default ones.

Call them at the top level of a conftest or a test module; the name of the variable becomes the
name of the fixture::

    from mlflow_bucketfs_testing import factories

    slow_bucketfs = factories.bucketfs_server(profile="docker-db")
    proxying_mlflow = factories.mlflow_server(artifacts_destination="{bucketfs_uri}/proxied")
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import pytest

import mlflow_bucketfs_testing as testing
from mlflow_bucketfs_testing.config import (
    BucketFSTarget,
    mlflow_server_option,
    mlflow_server_timeout_option,
    udf_client_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Scope = Literal["session", "package", "module", "class", "function"]
"""The scopes of pytest."""

_BUCKETFS_URI = "{bucketfs_uri}"
_BUCKETFS_SERVER = "{bucketfs_server}"


def bucketfs_server(*, scope: Scope = "session", **options: Any) -> Any:
    """Make a fixture that runs an embedded BucketFS.

    Args:
        scope: how long the server runs.
        options: arguments of `mlflow_bucketfs_testing.BucketFSServer`, such as ``buckets``,
            ``profile`` or ``tls_port``. Without any: one public bucket ``default``.

    Returns:
        A pytest fixture whose value is the running `mlflow_bucketfs_testing.BucketFSServer`.
    """

    @pytest.fixture(scope=scope)
    def bucketfs_server() -> Iterator[testing.BucketFSServer]:
        """A BucketFS without Exasol, in this process, on a free port.
        Scope: session. Type: mlflow_bucketfs_testing.BucketFSServer.
        Example: ``upload(bucketfs_server.url); assert bucketfs_server.keys()``.
        """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
        with testing.BucketFSServer(**options) as server:
            yield server

    return bucketfs_server


def mlflow_server(
    *,
    scope: Scope = "session",
    reuse: bool = True,
    default_artifact_root: str | None = None,
    artifacts_destination: str | None = None,
    host: str | None = None,
    env: Mapping[str, str | None] | None = None,
    timeout_s: float | None = None,
    **options: Any,
) -> Any:
    """Make a fixture that runs a real ``mlflow server``.

    In ``default_artifact_root`` and ``artifacts_destination``, ``{bucketfs_uri}`` stands for the
    value of the fixture of this name; the server process gets the credentials for it. If neither
    is given, ``default_artifact_root`` is ``{bucketfs_uri}/mlflow``.

    Args:
        scope: how long the server runs.
        reuse: whether ``--mlflow-server URL`` replaces the server; False for a fixture that
            requires a server with these arguments.
        default_artifact_root: location of the artifacts of new experiments.
        artifacts_destination: location of the artifacts that the server proxies.
        host: address to listen on; default: the value of the fixture ``mlflow_server_host``.
        env: variables for the server process; None removes one.
        timeout_s: how long the server may take to answer, in seconds; default: the option
            ``--mlflow-bucketfs-mlflow-server-timeout``.
        options: further arguments of `mlflow_bucketfs_testing.MlflowServerProcess`, such as
            ``backend_store_uri``, ``extra_args`` or ``workers``.

    Returns:
        A pytest fixture whose value is a `.MlflowServerProcess`, or an `.ExternalMlflowServer`
        with ``--mlflow-server``.
    """
    if default_artifact_root is None and artifacts_destination is None:
        default_artifact_root = f"{_BUCKETFS_URI}/mlflow"
    stores_in_bucketfs = any(
        _BUCKETFS_URI in (location or "")
        for location in (default_artifact_root, artifacts_destination)
    )

    def own_server(request: pytest.FixtureRequest) -> testing.MlflowServerProcess:
        return testing.MlflowServerProcess(
            default_artifact_root=_resolved(request, default_artifact_root),
            artifacts_destination=_resolved(request, artifacts_destination),
            host=host or request.getfixturevalue("mlflow_server_host"),
            env={**(_bucketfs_environment(request) if stores_in_bucketfs else {}), **(env or {})},
            timeout_s=timeout_s or mlflow_server_timeout_option(request.config),
            **options,
        )

    def running_server(
        request: pytest.FixtureRequest,
    ) -> Iterator[testing.MlflowServerProcess | testing.ExternalMlflowServer]:
        """A running MLflow server whose artifacts are stored in `bucketfs_uri`.
        Scope: session. Type: mlflow_bucketfs_testing.MlflowServerProcess, or ExternalMlflowServer
        with --mlflow-server URL. Example: ``get(mlflow_server.uri)``.
        """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
        url = mlflow_server_option(request.config) if reuse else None
        with ExitStack() as stack:
            try:
                server = testing.ExternalMlflowServer(url) if url else own_server(request)
                stack.enter_context(server)
            except testing.MlflowServerError as error:
                # The message is complete: a traceback through our own code would hide it
                pytest.fail(str(error), pytrace=False)
            yield server

    # bucketfs_uri is in the signature so that pytest sees the dependency at collection, and runs
    # the test on each backend. A fixture that does not need it must not start a server
    def mlflow_server(request: pytest.FixtureRequest, bucketfs_uri: str) -> Any:  # noqa: ARG001
        yield from running_server(request)

    mlflow_server.__doc__ = running_server.__doc__
    return pytest.fixture(scope=scope)(mlflow_server if stores_in_bucketfs else running_server)


def mlflow_client_env(*, scope: Scope = "session") -> Any:
    """Make a fixture with the environment variables of a client.

    It is for projects whose ``mlflow_tracking_uri`` or ``bucketfs_target`` does not have the scope
    ``session``: pytest forbids a fixture a wider scope than that of its dependencies.

    Args:
        scope: how long the value is used.

    Returns:
        A pytest fixture whose value is a ``dict[str, str]``; pytest shows no password in it.
    """

    @pytest.fixture(scope=scope)
    def mlflow_client_env(
        request: pytest.FixtureRequest, mlflow_tracking_uri: str, bucketfs_target: BucketFSTarget
    ) -> dict[str, str]:
        """Environment variables of a client: tracking URI, user and password for BucketFS.
        With --mlflow-server, credentials that are set in the environment are kept.
        Scope: session. Type: dict[str, str].
        Example: ``subprocess.run(["python", "t.py"], env={**os.environ, **mlflow_client_env})``.
        """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
        credentials: Mapping[str, str] = bucketfs_target.environment
        if mlflow_server_option(request.config):
            credentials = {k: v for k, v in credentials.items() if k not in os.environ}
        return {"MLFLOW_TRACKING_URI": mlflow_tracking_uri, **credentials}

    return mlflow_client_env


def udf_runner(
    *,
    scope: Scope = "session",
    client: str | None = None,
    buckets: str | os.PathLike[str] | None = _BUCKETFS_SERVER,
    **options: Any,
) -> Any:
    """Make a fixture that runs UDF scripts without a database.

    Args:
        scope: how long the runner is used.
        client: see `mlflow_bucketfs_testing.UdfRunner`; default: the option
            ``--mlflow-bucketfs-udf-client``.
        buckets: directory that contains the buckets; ``{bucketfs_server}`` for the mount of the
            fixture of this name; None: no buckets.
        options: further arguments of `mlflow_bucketfs_testing.UdfRunner`, such as ``timeout_s``.

    Returns:
        A pytest fixture whose value is a `mlflow_bucketfs_testing.UdfRunner`.
    """

    @pytest.fixture(scope=scope)
    def udf_runner(request: pytest.FixtureRequest) -> Iterator[testing.UdfRunner]:
        """Runner of UDF scripts without a database; they see the buckets of `bucketfs_server`.
        The option --mlflow-bucketfs-udf-client selects the client that runs them.
        Scope: session. Type: mlflow_bucketfs_testing.UdfRunner.
        Example: ``udf_runner.create("CREATE PYTHON3 SET SCRIPT ...").run([(1, 2.5)]).rows``.
        """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
        try:
            runner = testing.UdfRunner(
                client or udf_client_option(request.config),
                buckets=request.getfixturevalue("bucketfs_server").mount_root
                if buckets == _BUCKETFS_SERVER
                else buckets,
                **options,
            )
        except testing.UdfClientError as error:
            # The message is complete: a traceback through our own code would hide it
            pytest.fail(str(error), pytrace=False)
        with runner:
            yield runner

    return udf_runner


def _resolved(request: pytest.FixtureRequest, location: str | None) -> str | None:
    if location is None or _BUCKETFS_URI not in location:
        return location
    return location.replace(_BUCKETFS_URI, request.getfixturevalue("bucketfs_uri"))


def _bucketfs_environment(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Return the credentials of the tests' bucket, and unset all other ``EXA_BUCKETFS_*``."""
    foreign = dict.fromkeys(name for name in os.environ if name.startswith("EXA_BUCKETFS_"))
    return {**foreign, **request.getfixturevalue("bucketfs_target").environment}
