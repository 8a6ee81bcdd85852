"""The wheels that go into the container: those of ``uv.lock`` by hash, our own built here."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from slc_build.commands import SlcBuildError, output_of, say
from slc_build.paths import BUILD_CONSTRAINTS, EXTRA, OWN_PACKAGES, PACKAGE, PYTHON, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The container, not the machine that builds it. The micro version is that of Ubuntu 24.04.
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
# glibc of Exasol's base image (Ubuntu 24.04) is 2.39; pip does not derive the older ones from it
_NEWEST_GLIBC, _OLDEST_GLIBC = 39, 5
_LEGACY_PLATFORMS = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
# 1980-01-01, the first moment a zip file can name: the same source gives the same bytes
_SOURCE_DATE_EPOCH = "315532800"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One package as the lock pins it.

    Attributes:
        name: its name.
        version: its exact version.
        hashes: ``sha256:…`` of each file that may be installed.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """Return it as a line for pip's ``--require-hashes``."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={h}" for h in self.hashes)])


def pinned_packages() -> list[Pinned]:
    """Return the third-party packages that the container gets, by name.

    Raises:
        SlcBuildError: uv cannot export, or a line has not the expected form.
    """
    exported = output_of(
        *("uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-workspace"),
        *("--no-header", "--no-annotate", "--package", PACKAGE, "--extra", EXTRA),
        cwd=ROOT,
    )
    return parse(exported)


def parse(exported: str) -> list[Pinned]:
    """Select from a universal export what applies to the container.

    Args:
        exported: output of ``uv export``: one requirement for all platforms per line.

    Raises:
        SlcBuildError: a package is not pinned, has no hash, or comes twice.
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
        packages: what to download.
        directory: gets ``requirements.txt`` and a folder ``wheels``; filled before for the same
            packages, it is left as it is, without asking the network.
    """
    requirements = "".join(f"{package.line()}\n" for package in packages)
    complete = directory / "requirements.txt"
    if complete.is_file() and complete.read_text(encoding="utf-8") == requirements:
        say("Wheels of uv.lock: downloaded before")
        return
    say(f"Downloading {requirements.count(chr(10))} wheels of uv.lock")
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
    """Build the wheels of this workspace into a directory, of which nothing else is left.

    The same source gives the same bytes, so that the engine's cache holds.
    """
    say(f"Building the wheels of {' and '.join(OWN_PACKAGES)}")
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
    """Return the SHA-256 of each wheel in the directory, by its file's name."""
    wheels = sorted(directory.glob("*.whl"))
    return {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}


def _platform_options() -> list[str]:
    tags = [f"manylinux_2_{n}_x86_64" for n in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    return [f"--platform={tag}" for tag in (*tags, *_LEGACY_PLATFORMS)]
