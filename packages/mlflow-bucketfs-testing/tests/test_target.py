"""`bucketfs_target` and `bucketfs_uri`: separate folders, clean-up, masked passwords."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import Fault, factories

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parent / "examples" / "test_backends.py"

# A target that the project itself defines, whose BucketFS outlives the session
CONFTEST = """
import pytest
from mlflow_bucketfs_testing.config import BucketFSTarget

@pytest.fixture(scope="session")
def bucketfs_target():
    return BucketFSTarget(uri={uri!r}, user="w", password="write")
"""


server = factories.bucketfs_server(scope="function")


@pytest.fixture
def outliving(server, pytester, bare_environment):
    """A project whose BucketFS has files of other users."""
    del bare_environment
    server.put("pytest-0123456789ab/of another session", b"1")
    pytester.makeconftest(CONFTEST.format(uri=server.uri()))
    return server


def stored(server):
    """Return all uploaded keys in order, including deleted ones."""
    return [each.key for each in server.requests if each.method == "PUT"]


def test_example_leaves_nothing_behind(outliving, pytester):
    """The example passes, and only its own objects are deleted."""
    shutil.copy(EXAMPLE, pytester.path)

    pytester.runpytest_subprocess().assert_outcomes(passed=1)

    assert len(stored(outliving)) == 1
    assert outliving.keys() == ["pytest-0123456789ab/of another session"]


def test_interrupted_session_leaves_nothing_behind(outliving, pytester):
    """After Ctrl-C in a test, the session's objects are deleted too."""
    shutil.copy(EXAMPLE, pytester.path / "test_1.py")
    pytester.makepyfile(test_2="def test(): raise KeyboardInterrupt")

    result = pytester.runpytest_subprocess()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert len(stored(outliving)) == 1
    assert outliving.keys() == ["pytest-0123456789ab/of another session"]


def test_sessions_do_not_share_a_folder(outliving, pytester):
    """Two sessions on one BucketFS, such as pytest-xdist's workers, store to different folders."""
    shutil.copy(EXAMPLE, pytester.path)

    for _ in range(2):
        pytester.runpytest_subprocess().assert_outcomes(passed=1)

    assert len({key.partition("/")[0] for key in stored(outliving)}) == 2


def test_failed_deletion_is_a_warning(outliving, pytester):
    """If the server refuses the deletion, the tests pass, and a warning names the folder."""
    shutil.copy(EXAMPLE, pytester.path)
    outliving.inject(Fault.status(403, method="DELETE", times=None))

    result = pytester.runpytest_subprocess("-W", "error::pytest.PytestWarning")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*PytestWarning: The tests' folder exa+bfs://*not deleted: *"])


@pytest.mark.parametrize(
    ("options", "failed"),
    [
        (["-l", "-vv", "-k", "not process"], 3),
        # not with -l: local variables of subprocess contain the encoded environment
        (["-vv", "-k", "process"], 1),
    ],
)
def test_passwords_are_not_printed(pytester, bare_environment, options, failed):
    """Reports of failed tests mask the password, which has its real value in the tests."""
    del bare_environment
    pytester.makeconftest(
        CONFTEST.format(uri="exa+bfs://h/s/b").replace('"write"', '"the-password"')
        + """
@pytest.fixture(scope="session")
def mlflow_tracking_uri():
    return "http://h"
"""
    )
    pytester.makepyfile("""
        import copy, os, pickle, subprocess, sys
        import pytest

        def test_target(bucketfs_target):
            password, variables = bucketfs_target.password, bucketfs_target.environment
            assert bucketfs_target == "something else"

        def test_client(mlflow_client_env):
            variables = {**os.environ, **mlflow_client_env}
            password = variables["EXA_BUCKETFS_PASSWORD"]
            copies = [copy.deepcopy(password), pickle.loads(pickle.dumps(password))]
            assert mlflow_client_env == {}

        def test_process(mlflow_client_env):
            subprocess.run(["/no/such/program"], env=mlflow_client_env)

        def test_it_works(mlflow_environment):
            password = mlflow_environment["EXA_BUCKETFS_PASSWORD"]
            assert len(password) == 12
            assert os.environ["EXA_BUCKETFS_PASSWORD"] == password == f"{password}"
            program = "import os; print(len(os.environ['EXA_BUCKETFS_PASSWORD']))"
            command = [sys.executable, "-c", program]
            for environment in (mlflow_environment, None):
                assert subprocess.check_output(command, env=environment) == b"12\\n"
            pytest.fail("to see what it shows")
    """)

    result = pytester.runpytest_inprocess("--junitxml=report.xml", *options)

    result.assert_outcomes(failed=failed, deselected=4 - failed)
    for output in (result.stdout.str(), (pytester.path / "report.xml").read_text()):
        assert "'EXA_BUCKETFS_PASSWORD': '***'" in output.replace("&#x27;", "'")
        assert "the-password" not in output
        assert ("to see what it shows" in output) == ("-l" in options)
