"""``--backend``: fixtures for an Exasol that pytest-exasol-backend starts or connects to.

The options and the fixtures named ``backend…`` are those of pytest-exasol-backend. This module is
registered as a second plugin only if a backend is selected; it overrides a few fixtures.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mlflow_bucketfs_testing.config import BucketFSTarget, mlflow_server_host_option

if TYPE_CHECKING:
    from collections.abc import Mapping

_ONPREM, _SAAS, _ALL = "onprem", "saas", "all"
_NO_SAAS = "Exasol SaaS is not supported yet: use --backend=onprem, or omit --backend"
_LOOPBACK = "127.0.0.1"
_TLS_VARIABLES = (
    "EXA_SSL_CERT_VALIDATION",
    "EXA_BUCKETFS_CA_BUNDLE",
    "EXA_BUCKETFS_TLS_HOSTNAME",
    "EXA_BUCKETFS_CERT_FINGERPRINT",
)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that stores in BucketFS once for each selected backend.

    By default, the fixture ``backend`` runs the test for every existing backend, and skips those
    not selected at the start of the test. The mark for SaaS skips earlier, before any fixture
    creates a database.
    """
    backends = _selected(metafunc.config)
    if not backends or not {"backend", "bucketfs_target"} <= {*metafunc.fixturenames}:
        return
    marks = metafunc.definition.iter_markers("parametrize")
    if not any("backend" in _argument_names(mark) for mark in marks):
        parametrize = pytest.mark.parametrize("backend", backends, indirect=True, scope="session")
        metafunc.definition.add_marker(parametrize)


@pytest.fixture(scope="session")
def bucketfs_target(request: pytest.FixtureRequest, backend: str) -> BucketFSTarget:
    """The bucket `default` of the Exasol that --backend selects, with credentials.
    Scope: session. Type: mlflow_bucketfs_testing.config.BucketFSTarget (uri, user, password).
    Override it to run the same tests against another BucketFS.
    Example: ``login(bucketfs_target.user, bucketfs_target.password)``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    if backend != _ONPREM:
        pytest.skip(_NO_SAAS)
    # The parameters for both backends would wait for a SaaS database as well
    found = request.getfixturevalue("backend_aware_onprem_bucketfs_params")
    return BucketFSTarget(
        uri=_bucket_uri(found),
        user=found["username"],
        password=found["password"],
        settings=_tls_settings(found),
        backend=backend,
    )


@pytest.fixture(scope="session")
def mlflow_server_host(request: pytest.FixtureRequest) -> str:
    """Address that `mlflow_server` listens on: --mlflow-bucketfs-mlflow-server-host, or that of
    this machine in the network of the container that --backend=onprem started, or else loopback.
    Scope: session. Type: str.
    Example: ``return gateway_of(container)``, to override it for clients elsewhere.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    if host := mlflow_server_host_option(request.config):
        return host
    container = request.getfixturevalue("backend_aware_onprem_database")
    gateway = container and str(container.network_info.gateway)
    return gateway if gateway and _is_address_of_this_machine(gateway) else _LOOPBACK


@pytest.fixture(scope="session")
def mlflow_udf_tracking_uri(request: pytest.FixtureRequest, mlflow_tracking_uri: str) -> str:
    """Tracking URI as a UDF in the database must use it: that of `mlflow_server_host`.
    Skips if Exasol runs in a container that cannot reach it.
    Scope: session. Type: str.
    Example: ``run_udf(parameters={"tracking_uri": mlflow_udf_tracking_uri})``.
    """  # noqa: D205 -- `pytest --fixtures` shows one paragraph
    container = request.getfixturevalue("backend_aware_onprem_database")
    if container and _is_loopback(mlflow_tracking_uri):
        pytest.skip(
            f"{mlflow_tracking_uri} is a loopback address of this machine, which a UDF in the "
            f"container cannot reach: set another one with --mlflow-bucketfs-mlflow-server-host"
        )
    return mlflow_tracking_uri


def is_selected(config: pytest.Config) -> bool:
    """Return whether the tests run on another backend than the embedded server."""
    return bool(config.getoption("--backend"))


def _selected(config: pytest.Config) -> list[Any]:
    chosen = {*config.getoption("--backend")}
    backends = {_ONPREM: _ONPREM, _SAAS: pytest.param(_SAAS, marks=pytest.mark.skip(_NO_SAAS))}
    return [backends[name] for name in backends if {name, _ALL} & chosen]


def _argument_names(parametrize: pytest.Mark) -> list[str]:
    names = parametrize.args[0] if parametrize.args else parametrize.kwargs["argnames"]
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]


def _bucket_uri(found: Mapping[str, Any]) -> str:
    from mlflow_bucketfs_core import BucketFSUri  # noqa: PLC0415 -- only if used
    from mlflow_bucketfs_core.errors import InvalidUriError  # noqa: PLC0415

    url = urlsplit(found["url"])
    if url.scheme not in ("http", "https") or url.path.strip("/"):
        # Without the value, which may contain a password
        pytest.fail("--bucketfs-url must be http://HOST:PORT or https://HOST:PORT", pytrace=False)
    scheme = "exa+bfss" if url.scheme == "https" else "exa+bfs"
    try:
        bucket = f"{found['service_name']}/{found['bucket_name']}"
        return str(BucketFSUri.parse(f"{scheme}://{url.netloc}/{bucket}"))
    except InvalidUriError as error:
        pytest.fail(f"--bucketfs-url cannot be used. {error}", pytrace=False)


def _tls_settings(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the TLS variables of the environment, or else pytest-exasol-backend's setting.

    That setting is not to verify, because every installation of Exasol has its own certificate.
    """
    if urlsplit(found["url"]).scheme != "https":
        return {}
    given = {name: os.environ[name] for name in _TLS_VARIABLES if os.environ.get(name)}
    unverified = {} if found.get("verify", True) else {"EXA_SSL_CERT_VALIDATION": "no"}
    return given or unverified


def _is_address_of_this_machine(address: str) -> bool:
    """Return whether a server can listen on the address; Docker Desktop's gateway is in its VM."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, 0), family=family).close()
    except OSError:
        return False
    return True


def _is_loopback(uri: str) -> bool:
    host = urlsplit(uri).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
