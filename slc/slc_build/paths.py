"""Names and directories that the steps share."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PYTHON = "3.12"
FLAVOR = f"mlflow-bucketfs-python-{PYTHON}"
FLAVOR_SOURCE = ROOT / "slc" / FLAVOR
BASE_DIGESTS = ROOT / "slc" / "base-image-digests.txt"
BUILD_CONSTRAINTS = ROOT / "release" / "build-constraints.txt"

# Generated files, which are not in git.
OUTPUT = ROOT / ".slc"
FLAVOR_PREPARED = OUTPUT / "flavor" / FLAVOR
EXASLCT_OUTPUT = OUTPUT / "exaslct"
WHEELS = OUTPUT / "wheels"

PACKAGE = "mlflow-bucketfs-plugin"
EXTRA = "udf"
# In the order in which they depend on each other
OWN_PACKAGES = ("mlflow-bucketfs-core", PACKAGE)

# The folder in the container to which the release step writes the lists of packages.
LISTS_IN_CONTAINER = "usr/local/share/mlflow-bucketfs"


def engine_directory() -> Path:
    """Return the private Docker engine's directory: one per checkout.

    It is outside the checkout because a Unix socket's path has at most 107 bytes, and because
    tools that search the checkout should not find an engine's layers.
    """
    name = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    return Path("/var/tmp") / f"mlflow-bucketfs-engine-{name}"  # noqa: S108 -- see `is_private`


def is_private(directory: Path) -> bool:
    """Return whether only this user can write to a directory.

    The name of the engine's directory can be predicted. So another user may create it first, with
    a socket that they listen on, or with a log file that is a link to another file.
    """
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
    return private and status.st_uid == os.geteuid()


def base_image() -> str:
    """Return the name of the flavor's base image, from its Dockerfile."""
    dockerfile = FLAVOR_SOURCE / "flavor_base" / "dependencies" / "Dockerfile"
    found = re.search(r"^FROM (\S+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{dockerfile} has no line FROM <image>")
    return found[1]
