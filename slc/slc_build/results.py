"""Files that describe an exported container: checksum, packages, constraints, build information."""

from __future__ import annotations

import hashlib
import json
import tarfile
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from slc_build.commands import SlcBuildError, engine_info, output_of
from slc_build.paths import FLAVOR, LISTS_IN_CONTAINER, OUTPUT, OWN_PACKAGES, PYTHON, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from slc_build.commands import Image

BUILD_INFO = OUTPUT / "build-info.json"
PACKAGES = OUTPUT / "packages.json"
CONSTRAINTS = OUTPUT / "constraints.txt"
_MIB = 1024**2
_LARGEST = 10


def write(container: Path, base: Image, wheels: Mapping[str, str]) -> None:
    """Write the files that belong to the container, and remove older containers.

    Args:
        container: the exported file.
        base: the image it was built on.
        wheels: SHA-256 of each wheel in it, by file name.
    """
    checksum = container.with_name(f"{container.name}.sha256")
    for older in OUTPUT.glob(f"{FLAVOR}_release*"):
        if older != container:
            older.unlink()
    digest = _sha256(container)
    checksum.write_text(f"{digest}  {container.name}\n", encoding="utf-8")
    lists = _read_lists(container)
    PACKAGES.write_bytes(lists["packages.json"])
    CONSTRAINTS.write_bytes(lists["constraints.txt"])
    info = {
        "file": container.name,
        "bytes": container.stat().st_size,
        "sha256": digest,
        "git": _git(),
        "packages": {name: version(name) for name in OWN_PACKAGES},
        "python": PYTHON,
        "base_image": {
            "name": base.name,
            "id": base.id,
            "origin": "pulled" if base.pulled else "local stand-in",
            "digests": base.digests,
        },
        "tools": {
            "exaslct": version("exasol-script-languages-container-tool"),
            "docker": engine_info("ServerVersion"),
            "uv": output_of("uv", "--version").strip(),
        },
        "wheels": wheels,
    }
    # Last: if this file exists, so do the others
    BUILD_INFO.write_text(f"{json.dumps(info, indent=1)}\n", encoding="utf-8")


def summary() -> str:
    """Return a summary of the last exported container, in a few lines."""
    info = json.loads(BUILD_INFO.read_text(encoding="utf-8"))
    packages = json.loads(PACKAGES.read_text(encoding="utf-8"))
    largest = sorted(packages, key=lambda package: -package["installed_bytes"])[:_LARGEST]
    lines = [
        f"{OUTPUT / info['file']}",
        f"  {info['bytes'] / 1e6:.0f} MB, {len(packages)} Python packages",
        f"  base image: {info['base_image']['origin']}",
        f"  the {_LARGEST} largest, installed:",
        *(
            f"    {p['installed_bytes'] / _MIB:7.1f} MiB  {p['name']} {p['version']}"
            for p in largest
        ),
    ]
    return "\n".join(lines)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_MIB):
            digest.update(block)
    return digest.hexdigest()


def _read_lists(container: Path) -> dict[str, bytes]:
    """Read the lists that the release step left in the container."""
    wanted = {f"{LISTS_IN_CONTAINER}/{name}": name for name in ("packages.json", "constraints.txt")}
    found: dict[str, bytes] = {}
    with tarfile.open(container, "r|gz") as archive:
        for member in archive:
            name = wanted.get(member.name.removeprefix("./"))
            if name and (content := archive.extractfile(member)):
                found[name] = content.read()
            if len(found) == len(wanted):
                return found
    raise SlcBuildError(f"{container} does not contain {', '.join(wanted.keys() - found.keys())}")


def _git() -> dict[str, Any]:
    """Return the commit, and whether the files differ from it."""
    try:
        commit = output_of("git", "rev-parse", "HEAD", cwd=ROOT).strip()
        changed = bool(output_of("git", "status", "--porcelain", cwd=ROOT).strip())
    except (SlcBuildError, FileNotFoundError):  # an unpacked sdist, or no git here
        return {"commit": None, "uncommitted_changes": None}
    return {"commit": commit, "uncommitted_changes": changed}
