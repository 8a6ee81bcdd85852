"""A release waits until the index has what its wheel requires: here a directory of wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CORE, PLUGIN, TESTING = (f"mlflow-bucketfs-{name}" for name in ("core", "plugin", "testing"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheels of our packages that require nothing but each other."""
    requirements = {
        CORE: [],
        PLUGIN: [f"{CORE}>=0.1.0,<0.2"],
        TESTING: [f"{CORE}>=0.1.0,<0.2", f"{PLUGIN}>=0.1.0,<0.2"],
    }
    dist = tmp_path_factory.mktemp("dist")
    for package, needed in requirements.items():
        source = tmp_path_factory.mktemp(package)
        module = source / "src" / package.replace("-", "_")
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
        (source / "pyproject.toml").write_text(
            f"[project]\nname = '{package}'\nversion = '0.1.0'\ndependencies = {needed}\n"
            "[build-system]\nrequires = ['uv_build>=0.13,<0.14']\nbuild-backend = 'uv_build'\n",
            encoding="utf-8",
        )
        subprocess.run(["uv", "build", "-q", "--wheel", "-o", dist, source], check=True)
    return dist


@pytest.fixture
def start(built, tmp_path):
    """Start the check of a package's release; only what is in ``tmp_path/index`` is published."""
    index = tmp_path / "index"
    index.mkdir()
    running = []

    def run(package, patience_s):
        command = [sys.executable, "-m", "release_check", "tag", package, "--dist", built]
        process = subprocess.Popen(
            [*command, "--index-patience", str(patience_s)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "release"),
                "RELEASE_CHECK_PAUSE_S": "0.2",
                "UV_FIND_LINKS": str(index),
                "UV_NO_INDEX": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def publish(built, index, package):
    """Put a package's wheel where the check finds it."""
    (wheel,) = built.glob(f"{package.replace('-', '_')}-*.whl")
    shutil.copy(wheel, index)


def test_first_package_waits_for_nothing(start):
    """Core requires none of ours."""
    process = start(CORE, 0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_missing_package_is_named(start):
    """Who releases in the wrong order is told so, and what is missing."""
    process = start(PLUGIN, 0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "in the order core, plugin, testing" in output
    assert f"{CORE} was not found" in output


def test_waits_for_what_is_published_meanwhile(start, built, tmp_path):
    """All tagged at once, testing waits for core and plugin."""
    process = start(TESTING, 600)
    for package in (CORE, PLUGIN):
        # once per package that is missing: each release unblocks the next one
        assert any(f"{package} was not found" in line for line in process.stdout)
        publish(built, tmp_path / "index", package)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
