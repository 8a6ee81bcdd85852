"""What is published holds what it must and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CHECK = """
import pathlib, sys
from release_check.contents import check_contents
check_contents(pathlib.Path(sys.argv[1]))
"""


BUILD = """
import pathlib, sys
from release_check.environments import build_packages
build_packages(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """All our packages, as they are built for PyPI."""
    dist = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "release")}
    subprocess.run([sys.executable, "-c", BUILD, dist], env=environment, check=True)
    return dist


def test_the_pinned_backend_builds_the_packages(built):
    """Each wheel says which version made it: the one whose hashes are committed."""
    pins = (ROOT / "release" / "build-constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^uv-build==(\S+)", pins, re.MULTILINE)
    wheels = list(built.glob("*.whl"))
    assert len(wheels) == len(list(ROOT.glob("packages/*/pyproject.toml")))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
            assert f"Generator: uv {version}\n" in archive.read(name).decode()


@pytest.fixture
def dist(built, tmp_path):
    """A copy of them that the test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "dist"))


def check(dist):
    """Return what the check says of the files; nothing if it passes."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, dist],
        env={**os.environ, "PYTHONPATH": str(ROOT / "release")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def rewrite(wheel, leave_out="", add=""):
    """Write a wheel anew, without one of its files or with one more."""
    kept = wheel.rename(wheel.with_suffix(".zip"))
    with zipfile.ZipFile(kept) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            if not leave_out or not name.endswith(leave_out):
                new.writestr(name, old.read(name))
        if add:
            new.writestr(add, "")
    kept.unlink()


def test_ours(dist):
    """Wheels have py.typed and the licence, sdists the tests and the changelog as well."""
    assert check(dist) == ""


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"leave_out": "py.typed"}, "lacks ['mlflow_bucketfs_core/py.typed']"),
        ({"leave_out": "LICENSE"}, "lacks ['mlflow_bucketfs_core-"),
        ({"add": "tests/conftest.py"}, "holds what is not the package: ['tests']"),
        ({"add": "mlflow_bucketfs_core/__pycache__/uri.pyc"}, "__pycache__/uri.pyc"),
    ],
)
def test_spoiled_wheel(dist, spoiled, told):
    """A wheel that lacks something, or holds more, is named."""
    (wheel,) = dist.glob("mlflow_bucketfs_core-*.whl")
    rewrite(wheel, **spoiled)
    assert told in check(dist)


def test_missing_sdist(dist):
    """All packages are there, in both forms."""
    next(dist.glob("mlflow_bucketfs_plugin-*.tar.gz")).unlink()
    assert "has 0 files mlflow_bucketfs_plugin-*.tar.gz" in check(dist)
