"""The content of the packages that are built for PyPI."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import package_check
import pytest

PACKAGES = [package.name for package in package_check.PACKAGES]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build all packages and return the directory."""
    dist: Path = tmp_path_factory.mktemp("dist")
    package_check.build(dist)
    return dist


def test_nothing_else_is_built(built):
    """The build has a wheel and an sdist of each published package, and nothing else."""
    assert len(list(built.glob("*.whl"))) == len(list(built.glob("*.tar.gz"))) == len(PACKAGES)
    published = package_check.ROOT.glob("packages/*/pyproject.toml")
    assert sorted(PACKAGES) == sorted(file.parent.name for file in published)


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel(built, package):
    """A wheel has types and licence, and is built by the pinned backend."""
    module = package.replace("-", "_")
    (wheel,) = built.glob(f"{module}-*.whl")
    metadata = f"{module}-{wheel.name.split('-')[1]}.dist-info"
    pins = (package_check.ROOT / "release" / "build-constraints.txt").read_text(encoding="utf-8")
    (backend,) = re.findall(r"^uv-build==(\S+)", pins, re.MULTILINE)
    with zipfile.ZipFile(wheel) as archive:
        assert {f"{module}/py.typed", f"{metadata}/licenses/LICENSE"} <= set(archive.namelist())
        assert f"Generator: uv {backend}\n" in archive.read(f"{metadata}/WHEEL").decode()


@pytest.mark.parametrize("package", PACKAGES)
def test_sdist(built, package):
    """An sdist has the tests and the changelog for packagers, but no caches."""
    (sdist,) = built.glob(f"{package.replace('-', '_')}-*.tar.gz")
    root = sdist.name.removesuffix(".tar.gz")
    needed = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert {f"{root}/{name}" for name in needed} <= set(names)
    caches = {"__pycache__", ".hypothesis", ".pytest_cache"}
    assert [name for name in names if caches & set(Path(name).parts)] == []
