"""``--backend``, with the plugins of the extra ``[exasol]`` and what they know of Docker.

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

# What ITDE tells about a container, with an address of this machine in the place of its gateway
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
    """Run pytest in a project, with an existing BucketFS behind Exasol's options."""
    del bare_environment

    def run_pytest(*arguments, url=existing.url, backend="onprem"):
        return pytester.runpytest_subprocess(
            *("-v", "-rs", f"--backend={backend}", "--itde-db-version=external", "--skip-slc"),
            *("--bucketfs-url", url, "--bucketfs-password", "write", *arguments),
        )

    return run_pytest


def test_nothing_of_ours_has_a_name_of_theirs(fixture_names):
    """Otherwise one plugin's fixtures would replace another's, in every project."""
    script = f"""
import exasol.pytest_backend, exasol.pytest_extension, exasol.pytest_slc
modules = [exasol.pytest_backend, exasol.pytest_extension, exasol.pytest_slc]
print([name for name in {fixture_names} for module in modules if hasattr(module, name)])
"""
    names = subprocess.check_output([sys.executable, "-W", "ignore", "-c", script], text=True)

    assert names.strip() == "[]"


def test_empty_run_uses_no_fixture(pytester, bare_environment, fixture_names):
    """Beside pytest-exasol-slc's autouse fixtures, nothing of ours is set up or registered."""
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
    """The plugins alone change nothing."""
    del bare_environment
    shutil.copy(EXAMPLE, pytester.path)

    result = pytester.runpytest_subprocess("-v")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_publish PASSED*"])


def test_existing_exasol(pytester, run, existing):
    """The example runs once, on the BucketFS that was named, and leaves nothing there."""
    shutil.copy(EXAMPLE, pytester.path)

    result = run()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_publish[[]onprem] PASSED*"])
    assert existing.requests.count(method="PUT") == 1
    assert existing.keys() == []


def test_each_selected_backend(pytester, run):
    """SaaS is a test of its own, skipped with a reason, before anything asks for a database."""
    shutil.copy(EXAMPLE, pytester.path)

    result = run(backend="saas")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*Exasol SaaS is not supported yet*"])


def test_all_backends(pytester, run, monkeypatch):
    """Tests with `bucketfs_uri` skip SaaS; other tests are as pytest-exasol-backend has them."""
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
        monkeypatch.setenv(name, "of nobody")

    result = run("--saas-database-id=none", backend="all")

    # test_own_choice comes as far as our fixture
    result.assert_outcomes(passed=5, skipped=3)
    result.stdout.fnmatch_lines_random(
        ["*::test_publish[[]onprem] PASSED*", "*::test_both[[]onprem] PASSED*"]
    )
    result.stdout.fnmatch_lines_random(
        ["*::test_neither PASSED*", "*::test_theirs[[]saas] PASSED*"]
    )


@pytest.mark.parametrize("pinned", [False, True], ids=["unverified", "pinned"])
def test_https_with_a_certificate_of_exasols_own(pytester, run, existing, monkeypatch, pinned):
    """By default it is not verified; what the environment says about it is passed on instead."""
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
def test_bad_url_is_named_without_its_password(pytester, run, url):
    """The error says how the option reads."""
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
def test_server_listens_where_a_container_reaches_it(pytester, run, gateway, options, host):
    """That is the gateway of the container's network, if it is an address of this machine."""
    pytester.makeconftest(CONTAINER.format(gateway=gateway))
    pytester.makepyfile(f"def test(mlflow_server_host): assert mlflow_server_host == {host!r}")

    run(*options).assert_outcomes(passed=1)


@pytest.mark.parametrize(("host", "outcome"), [("172.18.0.1", "passed"), ("localhost", "skipped")])
def test_udf_gets_an_address_it_can_reach(pytester, run, host, outcome):
    """A loopback address is none, and the tests that need another skip."""
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
