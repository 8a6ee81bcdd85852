"""The wheels of the container: third-party ones of ``uv.lock`` by hash, and our own."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from slc_build.commands import SlcBuildError, output_of, report
from slc_build.paths import BUILD_CONSTRAINTS, EXTRA, OWN_PACKAGES, PACKAGE, PYTHON, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Markers of the container, not of the building machine. The micro version is Ubuntu 24.04's.
_CONTAINER = {
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.3",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": f"{PYTHON}.3",
    "python_version": PYTHON,
    "sys_platform": "linux",
}
# glibc of Exasol's base image (Ubuntu 24.04) is 2.39; pip needs the older versions named, too
_NEWEST_GLIBC, _OLDEST_GLIBC = 39, 5
_LEGACY_PLATFORMS = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
# 1980-01-01, the earliest time in a zip file: the same source gives the same bytes
_SOURCE_DATE_EPOCH = "315532800"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A package with the version and the hashes of the lock.

    Attributes:
        name: its name.
        version: its exact version.
        hashes: ``sha256:…`` of each file that may be installed.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """Return the requirement as a line for pip's ``--require-hashes``."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={h}" for h in self.hashes)])


def pinned_packages() -> list[Pinned]:
    """Return the third-party packages of the container, sorted by name.

    Raises:
        SlcBuildError: uv cannot export, or a line does not have the expected form.
    """
    exported = output_of(
        *("uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-workspace"),
        *("--no-header", "--no-annotate", "--package", PACKAGE, "--extra", EXTRA),
        cwd=ROOT,
    )
    return parse(exported)


def parse(exported: str) -> list[Pinned]:
    """Select the container's packages from an export for all platforms.

    Args:
        exported: output of ``uv export``, one requirement with its marker per line.

    Raises:
        SlcBuildError: a package is not pinned, has no hash, or occurs twice.
    """
    pinned: dict[str, Pinned] = {}
    for line in exported.replace("\\\n", " ").splitlines():
        text, *hashes = line.split("--hash=")
        if not text.strip() or text.startswith("#"):
            continue
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(dict(_CONTAINER)):
            continue
        versions = [s.version for s in requirement.specifier if s.operator == "=="]
        if len(versions) != 1 or not hashes or requirement.name in pinned:
            raise SlcBuildError(f"uv.lock: expected one version with hashes: {text.strip()}")
        pinned[requirement.name] = Pinned(
            name=requirement.name,
            version=versions[0],
            hashes=tuple(h.strip() for h in hashes),
        )
    return [pinned[name] for name in sorted(pinned)]


def download(packages: Iterable[Pinned], directory: Path) -> None:
    """Download the wheels of the packages, checked against the lock's hashes.

    Args:
        packages: the packages to download.
        directory: the target of ``requirements.txt`` and a folder ``wheels``. If it has the same
            packages already, nothing is downloaded.
    """
    requirements = "".join(f"{package.line()}\n" for package in packages)
    complete = directory / "requirements.txt"
    if complete.is_file() and complete.read_text(encoding="utf-8") == requirements:
        report("Wheels of uv.lock: already downloaded")
        return
    report(f"Downloading {requirements.count(chr(10))} wheels of uv.lock")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    wanted = directory / "wanted.txt"
    wanted.write_text(requirements, encoding="utf-8")
    output_of(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", PYTHON, *_platform_options()),
        *("--dest", str(directory / "wheels"), "--requirement", str(wanted)),
    )
    wanted.rename(complete)  # last: a directory that has it is complete


def build_own(directory: Path) -> None:
    """Build the wheels of this workspace into a directory, after emptying it.

    The same source gives the same bytes, so that the engine's cache stays valid.
    """
    report(f"Building the wheels of {' and '.join(OWN_PACKAGES)}")
    shutil.rmtree(directory, ignore_errors=True)
    for package in OWN_PACKAGES:
        output_of(
            *("uv", "build", "--quiet", "--wheel", "--package", package),
            *("--build-constraints", str(BUILD_CONSTRAINTS), "--require-hashes"),
            *("--out-dir", str(directory)),
            env={"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH},
            cwd=ROOT,
        )
    (directory / ".gitignore").unlink(missing_ok=True)


def hashes_of(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each wheel in the directory, by file name."""
    wheels = sorted(directory.glob("*.whl"))
    return {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}


def _platform_options() -> list[str]:
    tags = [f"manylinux_2_{n}_x86_64" for n in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    return [f"--platform={tag}" for tag in (*tags, *_LEGACY_PLATFORMS)]
