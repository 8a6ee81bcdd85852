"""``--backend``, with the plugins of the extra ``[exasol]`` and a simulated Docker network.

``uv run --group exasol pytest`` runs these tests; without the group they skip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import factories

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.skipif(
    find_spec("exasol") is None or find_spec("exasol.pytest_backend") is None,
    reason="pytest-exasol-backend is not installed: uv run --group exasol pytest",
)

EXAMPLE = Path(__file__).parent / "examples" / "test_backends.py"
SETTINGS = ("EXA_SSL_CERT_VALIDATION", "EXA_BUCKETFS_TLS_HOSTNAME", "EXA_BUCKETFS_CERT_FINGERPRINT")

# ITDE's description of a container, with an address of this machine as its gateway
CONTAINER = """
import pytest
from exasol_integration_test_docker_environment.lib.models.data.database_info import DatabaseInfo
from exasol_integration_test_docker_environment.lib.models.data.docker_network_info import (
    DockerNetworkInfo,
)
from exasol_integration_test_docker_environment.lib.models.data.environment_info import (
    EnvironmentInfo,
)
from exasol_integration_test_docker_environment.lib.test_environment.ports import Ports

@pytest.fixture(scope="session")
def backend_aware_onprem_database():
    database = DatabaseInfo(host="172.18.0.2", ports=Ports.default_ports, reused=False)
    network = DockerNetworkInfo("network", "0.0.0.0/0", {gateway!r})
    return EnvironmentInfo("env", "docker_db", database, None, network)
"""

existing = factories.bucketfs_server(scope="function", tls_port=0)


@pytest.fixture
def run(pytester, bare_environment, existing):
    """Return a function that runs pytest with Exasol's options for an existing BucketFS."""
    del bare_environment

    def run_pytest(*arguments, url=existing.url, backend="onprem"):
        return pytester.runpytest_subprocess(
            *("-v", "-rs", f"--backend={backend}", "--itde-db-version=external", "--skip-slc"),
            *("--bucketfs-url", url, "--bucketfs-password", "write", *arguments),
        )

    return run_pytest


def test_fixture_names_do_not_collide(fixture_names):
    """No fixture has the name of an attribute of Exasol's plugins, which would override it."""
    script = f"""
import exasol.pytest_backend, exasol.pytest_extension, exasol.pytest_slc
modules = [exasol.pytest_backend, exasol.pytest_extension, exasol.pytest_slc]
print([name for name in {fixture_names} for module in modules if hasattr(module, name)])
"""
    names = subprocess.check_output([sys.executable, "-W", "ignore", "-c", script], text=True)

    assert names.strip() == "[]"


def test_empty_run_uses_no_fixture(pytester, bare_environment, fixture_names):
    """An empty run sets up only pytest-exasol-slc's autouse fixtures, and none of this plugin."""
    del bare_environment
    pytester.makepyfile("""
        def test(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("slc")
            assert not pytestconfig.pluginmanager.has_plugin("mlflow_bucketfs_exasol_backend")
    """)

    result = pytester.runpytest_subprocess("--setup-show")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*SETUP *slc_builder*"])
    assert not any(name in result.stdout.str() for name in fixture_names)


def test_without_a_backend_the_embedded_server_is_used(pytester, bare_environment):
    """Without ``--backend``, the example runs on the embedded server."""
    del bare_environment
    shutil.copy(EXAMPLE, pytester.path)

    result = pytester.runpytest_subprocess("-v")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_publish PASSED*"])


def test_existing_exasol(pytester, run, existing):
    """The example runs once, on the BucketFS of the options, and deletes its objects."""
    shutil.copy(EXAMPLE, pytester.path)

    result = run()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_publish[[]onprem] PASSED*"])
    assert existing.requests.count(method="PUT") == 1
    assert existing.keys() == []


def test_each_selected_backend(pytester, run):
    """A test for SaaS is skipped with a reason, before a database is created."""
    shutil.copy(EXAMPLE, pytester.path)

    result = run(backend="saas")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*Exasol SaaS is not supported yet*"])


def test_all_backends(pytester, run, monkeypatch):
    """Tests with `bucketfs_uri` skip SaaS; other tests run as without this plugin."""
    shutil.copy(EXAMPLE, pytester.path)
    pytester.makepyfile(
        test_others="""
        import pytest

        def test_theirs(backend): pass

        def test_both(backend, bucketfs_target): assert backend == bucketfs_target.backend

        @pytest.mark.parametrize("backend", ["saas"], indirect=True)
        def test_own_choice(backend, bucketfs_target): pass

        def test_neither(bucketfs_server): pass
        """
    )
    for name in ("SAAS_HOST", "SAAS_PAT", "SAAS_ACCOUNT_ID"):
        monkeypatch.setenv(name, "unused")

    result = run("--saas-database-id=none", backend="all")

    # test_own_choice is skipped by our fixture
    result.assert_outcomes(passed=5, skipped=3)
    result.stdout.fnmatch_lines_random(
        ["*::test_publish[[]onprem] PASSED*", "*::test_both[[]onprem] PASSED*"]
    )
    result.stdout.fnmatch_lines_random(
        ["*::test_neither PASSED*", "*::test_theirs[[]saas] PASSED*"]
    )


@pytest.mark.parametrize("pinned", [False, True], ids=["unverified", "pinned"])
def test_https_with_exasols_own_certificate(pytester, run, existing, monkeypatch, pinned):
    """Exasol's own certificate is not verified, unless TLS variables of the environment are set."""
    if pinned:
        monkeypatch.setenv("EXA_BUCKETFS_CERT_FINGERPRINT", existing.certificate_fingerprint)
    shutil.copy(EXAMPLE, pytester.path)
    pytester.makepyfile(
        test_settings=f"""
        def test(bucketfs_target, bucketfs_uri):
            settings = bucketfs_target.settings
            assert bucketfs_uri.startswith("exa+bfss://127.0.0.1:{existing.tls_port}/")
            assert [*settings] == [{SETTINGS[2 if pinned else 0]!r}]
        """
    )

    run(url=existing.tls_url).assert_outcomes(passed=2)

    assert existing.requests.count(method="PUT") == 1


@pytest.mark.parametrize("url", ["127.0.0.1:2580", "http://w:se/cret@h:1", "http://w:secret@h:1"])
def test_bad_url_is_reported_without_its_password(pytester, run, url):
    """The error names the option and does not contain the URL's password."""
    shutil.copy(EXAMPLE, pytester.path)

    result = run(url=url)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["--bucketfs-url *"])
    assert "cret" not in result.stdout.str()


@pytest.mark.parametrize(
    ("gateway", "options", "host"),
    [
        ("127.0.0.2", [], "127.0.0.2"),
        ("127.0.0.2", ["--mlflow-bucketfs-mlflow-server-host=127.0.0.3"], "127.0.0.3"),
        ("192.0.2.1", [], "127.0.0.1"),
    ],
    ids=["gateway", "option", "not ours"],
)
def test_server_listens_on_the_containers_gateway(pytester, run, gateway, options, host):
    """The server listens on the container's gateway, if it is an address of this machine."""
    pytester.makeconftest(CONTAINER.format(gateway=gateway))
    pytester.makepyfile(f"def test(mlflow_server_host): assert mlflow_server_host == {host!r}")

    run(*options).assert_outcomes(passed=1)


@pytest.mark.parametrize(("host", "outcome"), [("172.18.0.1", "passed"), ("localhost", "skipped")])
def test_udf_gets_an_address_it_can_reach(pytester, run, host, outcome):
    """Tests with `mlflow_udf_tracking_uri` skip if it is a loopback address."""
    pytester.makeconftest(
        CONTAINER.format(gateway="172.18.0.1")
        + f"""
@pytest.fixture(scope="session")
def mlflow_tracking_uri():
    return "http://{host}:5000"
"""
    )
    pytester.makepyfile("""
        def test(mlflow_udf_tracking_uri): assert mlflow_udf_tracking_uri == "http://172.18.0.1:5000"
    """)

    run().assert_outcomes(**{outcome: 1})
