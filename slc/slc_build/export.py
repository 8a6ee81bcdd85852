"""Export of the container to a file; the command of the nox session ``slc:export``."""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing import SlcBuilder

from slc_build import preflight, results, wheels
from slc_build.commands import SlcBuildError, report
from slc_build.paths import (
    EXASLCT_OUTPUT,
    FLAVOR_PREPARED,
    FLAVOR_SOURCE,
    OUTPUT,
    PACKAGE,
    WHEELS,
)

if TYPE_CHECKING:
    from slc_build.commands import Image
    from slc_build.preflight import RequiredBase


def prepare(*, required_base: RequiredBase = "any") -> tuple[Image, dict[str, str]]:
    """Check the requirements, and assemble the flavor from the files in git and the wheels.

    Args:
        required_base: the required kind of base image.

    Returns:
        The base image, and the SHA-256 of each wheel by file name.

    Raises:
        SlcBuildError: a requirement is missing, or a step failed.
    """
    base = preflight.check(required_base=required_base)
    report(f"Base image {base.name} ({'pulled' if base.pulled else 'local stand-in'})")
    locked, own = WHEELS / "locked", WHEELS / "own"
    wheels.download(wheels.pinned_packages(), locked)
    wheels.build_own(own)
    shutil.rmtree(FLAVOR_PREPARED, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FLAVOR_SOURCE, FLAVOR_PREPARED, ignore=unwanted)
    steps = FLAVOR_PREPARED / "flavor_base"
    shutil.copytree(locked, steps / "dependencies", dirs_exist_ok=True)
    shutil.copytree(own, steps / "release" / "wheels")
    # exaslct's hash of a flavor excludes the base image: with this file, a new image changes it
    (steps / "dependencies" / "base-image").write_text(f"{base.id}\n", encoding="utf-8")
    # the hash includes the files' modes, which depend on the umask
    for path in (FLAVOR_PREPARED, *FLAVOR_PREPARED.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return base, {**wheels.hashes_of(locked / "wheels"), **wheels.hashes_of(own)}


def export(*, required_base: RequiredBase = "any", force_rebuild: bool = False) -> Path:
    """Build the container and write it to ``.slc``, with the files that describe it.

    Args:
        required_base: the required kind of base image.
        force_rebuild: whether to build everything again even if nothing has changed.

    Returns:
        The exported file.

    Raises:
        SlcBuildError: a requirement is missing, or a step failed.
    """
    base, hashes = prepare(required_base=required_base)
    report("Building the images and the container with exaslct, which takes minutes the first time")
    report("exaslct warns that no registry has these images: that is expected")
    builder = SlcBuilder(
        FLAVOR_PREPARED,
        export_path=OUTPUT,
        output_directory=EXASLCT_OUTPUT,
        build_name=version(PACKAGE),
        force_rebuild=force_rebuild,
    )
    info = builder.export().export_infos[str(FLAVOR_PREPARED)]["release"]
    container, cached = Path(info.output_file), Path(info.cache_file)
    for older in cached.parent.iterdir():  # exaslct never deletes an export
        if older.is_file() and not older.name.startswith(cached.name):
            older.unlink()
    report("Writing checksum, packages, constraints and build information")
    results.write(container, base, hashes)
    return container


def main() -> int:
    """Export with the options of the command line; return 1 if it fails."""
    options = _parser().parse_args()
    try:
        if options.prepare_only:
            prepare(required_base=options.required_base)
        else:
            export(required_base=options.required_base, force_rebuild=options.force_rebuild)
            report(results.summary())
    except SlcBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slc_build.export",
        description="Build the script-language container and write it to .slc.",
    )
    parser.set_defaults(required_base="any")
    for required, text in (
        ("official", "refuse a local stand-in"),
        ("committed", "refuse also an image whose digest is not committed"),
    ):
        parser.add_argument(
            f"--require-{required}-base",
            dest="required_base",
            action="store_const",
            const=required,
            help=text,
        )
    parser.add_argument(
        "--force-rebuild", action="store_true", help="build again even if nothing has changed"
    )
    parser.add_argument("--prepare-only", action="store_true", help="only assemble the flavor")
    return parser


if __name__ == "__main__":
    sys.exit(main())
