"""Names and directories that the checks share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
# Versions and hashes of what builds the packages
BUILD_CONSTRAINTS = ROOT / "release" / "build-constraints.txt"

# In the order in which they depend on each other, and are published.
PACKAGES = ("mlflow-bucketfs-core", "mlflow-bucketfs-plugin", "mlflow-bucketfs-testing")

# A project that knows of this workspace nothing but the wheels.
EXAMPLE = ROOT / "integration-tests" / "reuse-example"


def folder(package: str, root: Path = ROOT) -> Path:
    """Return the directory of a package's sources."""
    return root / "packages" / package
