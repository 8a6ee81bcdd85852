"""Write lists of the installed packages; runs in the container, without other packages.

Usage: list_packages.py DIRECTORY

Leaves ``packages.json`` (name, version, licence and installed bytes of each package) and
``constraints.txt`` (their exact versions, for pip's option ``-c``) in the directory.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

# Not part of any model's environment
_TOOLS = {"pip", "setuptools", "wheel"}
# A longer field contains the licence's text instead of its name
_LONGEST_NAME = 60


def main() -> None:
    """Write both files and print the packages."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    packages = {}
    for found in distributions():
        # The first on the path is the one that is imported
        packages.setdefault(normalized(found.metadata["Name"]), found)
    listed = [described(name, packages[name]) for name in sorted(packages)]
    pins = [f"{p['name']}=={p['version']}\n" for p in listed if p["name"] not in _TOOLS]
    (directory / "packages.json").write_text(f"{json.dumps(listed, indent=1)}\n", encoding="utf-8")
    (directory / "constraints.txt").write_text("".join(pins), encoding="utf-8")
    sys.stdout.writelines(pins)


def described(name: str, package: Distribution) -> dict[str, str | int]:
    """Return name, version, licence and installed bytes of a package."""
    files = [Path(str(file.locate())) for file in package.files or []]
    return {
        "name": name,
        "version": package.version,
        "license": license_of(package),
        "installed_bytes": sum(file.stat().st_size for file in files if file.is_file()),
    }


def license_of(package: Distribution) -> str:
    """Return the licence's name: SPDX expression, else the field, else the classifiers."""
    metadata = package.metadata
    field = (metadata.get("License") or "").strip()
    if metadata.get("License-Expression"):
        return str(metadata["License-Expression"])
    if field and field != "UNKNOWN" and len(field) <= _LONGEST_NAME and "\n" not in field:
        return field
    classifiers = metadata.get_all("Classifier") or []
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    return ", ".join(names) or field.partition("\n")[0].strip()[:_LONGEST_NAME] or "unknown"


def normalized(name: str) -> str:
    """Return a package's name, normalized as by package indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
