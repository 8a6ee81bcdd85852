"""From a commit to the container's file; the command behind the nox session ``slc:export``."""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing import SlcBuilder

from slc_build import preflight, results, wheels
from slc_build.commands import SlcBuildError, say
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
    """Check what is needed, and put the flavor together: the files in git, and the wheels.

    Args:
        required_base: what the base image must be.

    Returns:
        The base image, and the SHA-256 of each wheel by file name.

    Raises:
        SlcBuildError: something that it needs is missing.
    """
    base = preflight.check(required_base=required_base)
    say(f"Base image {base.name} ({'pulled' if base.pulled else 'local stand-in'})")
    locked, own = WHEELS / "locked", WHEELS / "own"
    wheels.download(wheels.pinned_packages(), locked)
    wheels.build_own(own)
    shutil.rmtree(FLAVOR_PREPARED, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FLAVOR_SOURCE, FLAVOR_PREPARED, ignore=unwanted)
    steps = FLAVOR_PREPARED / "flavor_base"
    shutil.copytree(locked, steps / "dependencies", dirs_exist_ok=True)
    shutil.copytree(own, steps / "release" / "wheels")
    # exaslct's hash of a flavor leaves the base image out: this file makes a new one count
    (steps / "dependencies" / "base-image").write_text(f"{base.id}\n", encoding="utf-8")
    # and it covers the files' modes, which depend on the umask
    for path in (FLAVOR_PREPARED, *FLAVOR_PREPARED.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return base, {**wheels.hashes_of(locked / "wheels"), **wheels.hashes_of(own)}


def export(*, required_base: RequiredBase = "any", force_rebuild: bool = False) -> Path:
    """Build the container and write it to ``.slc``, with the files that describe it.

    Args:
        required_base: what the base image must be.
        force_rebuild: whether to build everything anew although nothing has changed.

    Returns:
        The exported file.

    Raises:
        SlcBuildError: something that it needs is missing.
    """
    base, hashes = prepare(required_base=required_base)
    say("Building the images and packing the container with exaslct: minutes, the first time")
    say("exaslct warns that no registry has these images: that is expected")
    builder = SlcBuilder(
        FLAVOR_PREPARED,
        export_path=OUTPUT,
        output_directory=EXASLCT_OUTPUT,
        build_name=version(PACKAGE),
        force_rebuild=force_rebuild,
    )
    info = builder.export().export_infos[str(FLAVOR_PREPARED)]["release"]
    container, cached = Path(info.output_file), Path(info.cache_file)
    for older in cached.parent.iterdir():  # exaslct keeps every export for ever
        if older.is_file() and not older.name.startswith(cached.name):
            older.unlink()
    say("Writing checksum, packages, constraints and build information")
    results.write(container, base, hashes)
    return container


def main() -> int:
    """Export as the command line says; 1 if that is not possible."""
    options = _parser().parse_args()
    try:
        if options.prepare_only:
            prepare(required_base=options.required_base)
        else:
            export(required_base=options.required_base, force_rebuild=options.force_rebuild)
            say(results.summary())
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
        ("committed", "and any other digest than ours"),
    ):
        parser.add_argument(
            f"--require-{required}-base",
            dest="required_base",
            action="store_const",
            const=required,
            help=text,
        )
    parser.add_argument(
        "--force-rebuild", action="store_true", help="build anew although nothing has changed"
    )
    parser.add_argument("--prepare-only", action="store_true", help="only put the flavor together")
    return parser


if __name__ == "__main__":
    sys.exit(main())
