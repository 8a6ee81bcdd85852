"""The pytest plugin, in pytest runs on the documentation's examples."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow_bucketfs_testing.config import udf_client_option

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def example(pytester, bare_environment):
    """Return a function that copies an example into an empty project."""
    del bare_environment

    def copy(name, to=None):
        return shutil.copy(EXAMPLES / name, pytester.path / (to or name))

    return copy


def test_loading_imports_nothing_heavy():
    """Loading the plugin imports no module that would slow down an empty test run."""
    heavy = ["mlflow", "mlflow_bucketfs_core", "psutil", "requests", "starlette", "uvicorn"]
    heavy += ["google.protobuf", "mlflow_bucketfs_testing.udf", "zmq"]
    script = f"""
import sys, pytest, mlflow_bucketfs_testing.plugin
print([name for name in {heavy} if name in sys.modules])
"""
    run = [sys.executable, "-c", script]

    assert subprocess.check_output(run, text=True).strip() == "[]"


def test_package_names_are_lazy_and_complete():
    """All public names can be imported, an unknown one is an error, and the version is defined."""
    package = import_module("mlflow_bucketfs_testing")

    assert all(getattr(package, name) for name in package.__all__)
    assert package.__version__
    assert {"__version__", *package.__all__} <= {*dir(package)}
    with pytest.raises(AttributeError, match="no attribute 'Bucket'"):
        package.Bucket  # noqa: B018 -- it is the access that raises


def test_empty_run_uses_no_fixture(pytester, fixture_names):
    """A test without fixtures sets up no fixture of the plugin."""
    pytester.makepyfile("def test(): pass")

    result = pytester.runpytest_subprocess("--setup-show")

    result.assert_outcomes(passed=1)
    assert not any(name in result.stdout.str() for name in fixture_names)


def test_fixtures_are_documented(pytester, fixture_names):
    """``pytest --fixtures`` shows scope, type and an example of each fixture."""
    output = pytester.runpytest_subprocess("--fixtures").stdout.str()

    for name in fixture_names:
        text = output.split(f"\n{name} ")[1].split("\n\n")[0]
        assert "Scope: " in text, name
        assert "Type: " in text, name
        assert "Example: " in text, name


def test_plugin_can_be_switched_off(pytester):
    """Without the plugin its fixtures do not exist."""
    pytester.makepyfile("def test(bucketfs_uri): pass")

    result = pytester.runpytest_subprocess("-p", "no:mlflow_bucketfs")

    result.stdout.fnmatch_lines(["*fixture 'bucketfs_uri' not found*"])


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_bad_timeout_is_a_usage_error(pytester, value):
    """A timeout that is not a positive number ends pytest before any test."""
    result = pytester.runpytest_subprocess(f"--mlflow-bucketfs-mlflow-server-timeout={value}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--mlflow-bucketfs-mlflow-server-timeout*not '{value}'*"])


def test_command_line_overrides_ini(pytester):
    """All options exist as ini values, which the command line overrides."""
    pytester.makeini("""
        [pytest]
        mlflow_bucketfs_mlflow_server = http://127.0.0.1:1
        mlflow_bucketfs_mlflow_server_host = 127.0.0.2
        mlflow_bucketfs_mlflow_server_timeout = 7
    """)
    pytester.makepyfile("""
        from mlflow_bucketfs_testing import config

        def test(pytestconfig, mlflow_server_host):
            assert mlflow_server_host == "127.0.0.2"
            assert config.mlflow_server_option(pytestconfig) == "http://127.0.0.1:2"
            assert config.mlflow_server_timeout_option(pytestconfig) == 7
    """)

    pytester.runpytest_subprocess("--mlflow-server=http://127.0.0.1:2").assert_outcomes(passed=1)


def test_names_of_options_have_the_plugins_prefix(pytester):
    """All options but ``--mlflow-server``, and all ini values, begin with the plugin's name."""
    output = pytester.runpytest_inprocess("--help").stdout.str()

    group = output.split("\nMLflow on BucketFS:\n")[1].split("\n\n")[0]
    options = re.findall(r"^  (--\S+?)[= ]", group, re.MULTILINE)
    ini_values = re.findall(r"^  (mlflow\S+) \(string\)", output, re.MULTILINE)
    assert len(options) == len(ini_values) == 5
    assert [name for name in options if not name.startswith("--mlflow-bucketfs-")] == [
        "--mlflow-server"
    ]
    assert all(name.startswith("mlflow_bucketfs_") for name in ini_values)


needs_xdist = pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")


@pytest.mark.parametrize(
    ("definition", "arguments", "value"),
    [
        ("default='none'", ["--mlflow-server=theirs"], "theirs"),
        pytest.param(
            "default='none'", ["-n1", "--mlflow-server", "theirs"], "theirs", marks=needs_xdist
        ),
        ("default='none'", ["--help"], None),
        ("action='store_true'", ["--mlflow-server"], True),
        ("type=int", ["--mlflow-server=7"], 7),
    ],
    ids=["value", "workers", "help", "flag", "number"],
)
def test_a_projects_own_option_is_used(pytester, definition, arguments, value):
    """A project's own ``--mlflow-server`` is used; the fixtures then read the ini value."""
    pytester.makeini("[pytest]\nmlflow_bucketfs_mlflow_server = http://127.0.0.1:1")
    pytester.makeconftest(f"""
        def pytest_addoption(parser):
            parser.addoption("--mlflow-server", {definition}, help="an option of the project")
            parser.addoption("--needed", required=True)
    """)
    pytester.makepyfile(f"""
        from mlflow_bucketfs_testing import config

        def test(pytestconfig):
            assert pytestconfig.getoption("--mlflow-server") == {value!r}
            assert config.mlflow_server_option(pytestconfig) == "http://127.0.0.1:1"
    """)

    result = pytester.runpytest_inprocess("--needed=1", *arguments)

    if value is None:
        assert result.stdout.str().count("--mlflow-server") == 1
        result.stdout.fnmatch_lines(["*an option of the project*"])
    else:
        result.assert_outcomes(passed=1)


def test_a_project_in_a_folder_may_define_the_option_late(pytester):
    """A conftest that is loaded during collection can define ``--mlflow-server``."""
    tests = pytester.mkdir("project")
    tests.joinpath("conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--mlflow-server', dest='theirs')"
    )
    tests.joinpath("test_it.py").write_text("def test(): pass")

    pytester.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("ini", "arguments"),
    [
        ("", ["--mlflow-server=http://127.0.0.1:2"]),
        ("", ["--noconftest", "--mlflow-server", "http://127.0.0.1:2"]),
        pytest.param("", ["-n1", "--mlflow-server", "http://127.0.0.1:2"], marks=needs_xdist),
        ("testpaths = tests", ["--own=1", "--mlflow-server", "http://127.0.0.1:2"]),
        ("addopts = --mlflow-server http://127.0.0.1:2", ["tests"]),
    ],
    ids=["value", "noconftest", "workers", "testpaths", "addopts"],
)
def test_without_a_projects_own_option_there_is_ours(pytester, ini, arguments):
    """The plugin's option accepts all forms, and does not change the search for conftests."""
    pytester.makeini(f"[pytest]\nmlflow_bucketfs_mlflow_server = http://127.0.0.1:1\n{ini}")
    pytester.mkdir("tests").joinpath("conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--own')"
    )
    pytester.path.joinpath("tests", "test_it.py").write_text(
        "from mlflow_bucketfs_testing import config\n"
        "def test(pytestconfig):\n"
        "    assert config.mlflow_server_option(pytestconfig) == 'http://127.0.0.1:2'\n"
    )

    pytester.runpytest_inprocess(*arguments).assert_outcomes(passed=1)


def test_a_clients_environment_for_another_scope(pytester):
    """`factories.mlflow_client_env` makes a fixture for a tracking URI of another scope."""
    pytester.makepyfile("""
        import pytest
        from mlflow_bucketfs_testing import factories

        mlflow_client_env = factories.mlflow_client_env(scope="module")

        @pytest.fixture(scope="module", params=["http://a", "http://b"])
        def mlflow_tracking_uri(request):
            return request.param

        def test(mlflow_environment, mlflow_tracking_uri):
            assert mlflow_environment["MLFLOW_TRACKING_URI"] == mlflow_tracking_uri
    """)

    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_absent_server_fails_with_its_url(pytester):
    """If no server answers at the URL, the error contains the URL and no traceback."""
    pytester.makepyfile("def test(mlflow_server): pass")

    result = pytester.runpytest_subprocess("--mlflow-server=http://127.0.0.1:1")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["No MLflow server answers at http://127.0.0.1:1/health*"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.fixture
def pytest_without(pytester):
    """Return a function that runs pytest in an environment without some distributions."""

    def run(prefixes, test):
        site = pytester.mkdir("site")
        ours = Path(import_module("mlflow_bucketfs_testing").__file__).parent
        (site / ours.name).symlink_to(ours)
        for installed in Path(str(distribution("pytest").locate_file(""))).iterdir():
            if not installed.name.startswith(prefixes):
                (site / installed.name).symlink_to(installed)
        # -S: no site-packages, so that only the directory's distributions are found
        bare = f"""
import sys
sys.path.append({str(site)!r})
import pytest
sys.exit(pytest.main(["-p", "mlflow_bucketfs_testing.plugin", {str(test)!r}]))
"""
        return pytester.run(sys.executable, "-S", "-c", bare)

    return run


def test_missing_extra_names_the_pip_command(pytester, pytest_without):
    """In an environment without MLflow, the fixture fails at once with the pip command."""
    pytester.makeconftest("""
        from mlflow_bucketfs_testing import factories
        mlflow_server = factories.mlflow_server(default_artifact_root="artifacts")
    """)
    test = pytester.makepyfile("def test(mlflow_server): pass")

    result = pytest_without(("mlflow",), test)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*pip install "mlflow-bucketfs-testing[[]mlflow]"'])


def test_missing_extra_for_udfs_names_the_pip_command(pytester, pytest_without):
    """Without pyzmq, the fixture fails at once, and the header contains no UDF client."""
    test = pytester.makepyfile("def test(udf_runner): pass")

    result = pytest_without(("mlflow", "zmq", "pyzmq"), test)

    result.assert_outcomes(errors=1)
    line = 'running UDFs needs zmq: pip install "mlflow-bucketfs-testing[[]udf]"'
    result.stdout.fnmatch_lines([line])
    result.stdout.no_fnmatch_line("UDF client:*")


def test_udfs_of_a_project(pytester, bare_environment):
    """The fixture runs scripts, which see the buckets of the fixture `bucketfs_server`."""
    del bare_environment
    pytester.makepyfile("""
        def test(udf_runner, bucketfs_server):
            bucketfs_server.put("a.txt", b"hello")
            udf = udf_runner.create('''
                CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS VARCHAR(100) AS
                import os
                def run(ctx):
                    root = os.environ["EXA_BUCKETFS_MOUNT_ROOT"]
                    return open(f"{root}/bfsdefault/default/a.txt").read() * ctx.x
                /''')
            assert udf.run([(2,)]).rows == [("hellohello",)]
            assert udf_runner.client == "reference"
    """)

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["UDF client: reference"])


@pytest.mark.parametrize("given", ["option", "ini"])
def test_another_udf_client(pytester, given):
    """The path of a client is relative to the working directory; the header contains it."""
    client = "a/client" if given == "ini" else "none"
    pytester.makeini(f"[pytest]\nmlflow_bucketfs_udf_client = {client}")
    arguments = ["--mlflow-bucketfs-udf-client=a/client"] if given == "option" else []
    program = pytester.mkdir("a") / "client"
    program.touch(mode=0o700)
    pytester.makepyfile(f"""
        from mlflow_bucketfs_testing import factories
        other_runner = factories.udf_runner(client="reference", buckets=None)

        def test(udf_runner, other_runner):
            assert udf_runner.client == {str(program)!r}
            assert other_runner.client == "reference"
    """)

    result = pytester.runpytest_inprocess(*arguments)

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"UDF client: {program}"])


def test_a_missing_udf_client_fails_with_its_path(pytester):
    """The error for a missing client contains its path and no traceback."""
    pytester.makepyfile("def test(udf_runner): pass")

    result = pytester.runpytest_inprocess("--mlflow-bucketfs-udf-client=/none")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["there is no UDF client at /none: *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_uploader_example(pytester, example):
    """The documentation's example of an uploader passes."""
    example("test_uploader.py")

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_factories_example(pytester, example):
    """The example's conftest starts further servers with other options than the default one."""
    example("conftest_factories.py", to="conftest.py")
    pytester.makepyfile("""
        def test(bucketfs_server, slow_bucketfs, private_bucketfs):
            assert len({bucketfs_server.url, slow_bucketfs.url, private_bucketfs.url}) == 3
            assert private_bucketfs.buckets[0].name == "models"
    """)

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_training_example_interrupted_afterwards(pytester, example, session_processes):
    """The example passes on the address of the option; Ctrl-C in a later test ends the server."""
    example("test_training.py", to="test_1_training.py")
    pytester.makepyfile(
        test_2_address="""
        import socket
        from urllib.parse import urlsplit
        from urllib.request import urlopen

        import pytest

        def test(mlflow_udf_tracking_uri):
            server = urlsplit(mlflow_udf_tracking_uri)
            assert server.hostname == "127.0.0.2"
            experiment = "/api/2.0/mlflow/experiments/get?experiment_id=0"
            with urlopen(mlflow_udf_tracking_uri + experiment, timeout=60) as response:
                assert b"exa+bfs://127.0.0.1:" in response.read()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port))
        """,
        test_3_endless="""
        import time

        def test(mlflow_server):
            print("directory", mlflow_server.directory, flush=True)
            time.sleep(600)
        """,
    )

    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", "--mlflow-bucketfs-mlflow-server-host=127.0.0.2"],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        line = next(line for line in run.stdout if "directory" in line)
        assert session_processes()
        run.send_signal(signal.SIGINT)
        output = run.stdout.read()

    assert "2 passed" in output
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert not session_processes()
    assert not Path(line.split()[-1]).exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("slc:/data/a:b/c.tar.gz", "slc:/data/a:b/c.tar.gz"),
        ("slc:a:b/c.tar.gz", "slc:{}/a:b/c.tar.gz"),
        ("/data/a:b/client", "/data/a:b/client"),
        ("a:b/client", "{}/a:b/client"),
    ],
)
def test_a_udf_clients_path_may_have_colons(pytester, given, expected):
    """Only the prefix ``slc:`` is not part of the path."""
    config = pytester.parseconfig(f"--mlflow-bucketfs-udf-client={given}")
    assert udf_client_option(config) == expected.format(pytester.path)
