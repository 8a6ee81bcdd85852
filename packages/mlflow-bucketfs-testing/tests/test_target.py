"""`bucketfs_target` and `bucketfs_uri`: a folder of its own, and nothing left in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import Fault, factories

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parent / "examples" / "test_backends.py"

# A BucketFS that outlives the session, named by the project itself
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
    """A project that stores in a BucketFS in which others have files."""
    del bare_environment
    server.put("pytest-0123456789ab/of somebody else", b"1")
    pytester.makeconftest(CONFTEST.format(uri=server.uri()))
    return server


def stored(server):
    """Return the keys that were uploaded, in order, whether they are there still or not."""
    return [each.key for each in server.requests if each.method == "PUT"]


def test_example_leaves_nothing_behind(outliving, pytester):
    """The example passes, and what it stored is deleted, but nothing else."""
    shutil.copy(EXAMPLE, pytester.path)

    pytester.runpytest_subprocess().assert_outcomes(passed=1)

    assert len(stored(outliving)) == 1
    assert outliving.keys() == ["pytest-0123456789ab/of somebody else"]


def test_interrupted_session_leaves_nothing_behind(outliving, pytester):
    """Ctrl-C in a test leads to the same cleaning."""
    shutil.copy(EXAMPLE, pytester.path / "test_1.py")
    pytester.makepyfile(test_2="def test(): raise KeyboardInterrupt")

    result = pytester.runpytest_subprocess()

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert len(stored(outliving)) == 1
    assert outliving.keys() == ["pytest-0123456789ab/of somebody else"]


def test_sessions_do_not_share_a_folder(outliving, pytester):
    """Two sessions on one BucketFS, such as pytest-xdist's workers, store to different folders."""
    shutil.copy(EXAMPLE, pytester.path)

    for _ in range(2):
        pytester.runpytest_subprocess().assert_outcomes(passed=1)

    assert len({key.partition("/")[0] for key in stored(outliving)}) == 2


def test_folder_that_stays_is_a_warning(outliving, pytester):
    """If the server refuses the deletion, the tests pass, and a warning names what stays."""
    shutil.copy(EXAMPLE, pytester.path)
    outliving.inject(Fault.status(403, method="DELETE", times=None))

    result = pytester.runpytest_subprocess("-W", "error::pytest.PytestWarning")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*PytestWarning: The tests' folder exa+bfs://*stays behind: *"])
