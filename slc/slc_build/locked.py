"""What ``uv.lock`` says for the container's Python."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import Requirement

from slc_build.commands import output_of
from slc_build.paths import EXTRA, PACKAGE, PYTHON, ROOT
from slc_build.progress import SlcBuildError

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
        SlcBuildError: uv cannot export, or a line is not what it always was.
    """
    exported = output_of(
        *("uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-workspace"),
        *("--no-header", "--no-annotate", "--package", PACKAGE, "--extra", EXTRA),
        cwd=ROOT,
    )
    return parse(exported)


def parse(exported: str) -> list[Pinned]:
    """Keep of a universal export what applies to the container.

    Args:
        exported: output of ``uv export``: one requirement for all platforms per line.

    Raises:
        SlcBuildError: A package is not pinned, has no hash, or comes twice.
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
