"""From a commit to the container's file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing import SlcBuilder

from slc_build import flavor, preflight, results
from slc_build.paths import EXASLCT_OUTPUT, FLAVOR_PREPARED, OUTPUT, PACKAGE
from slc_build.progress import say, watching

if TYPE_CHECKING:
    from slc_build.docker import Image
    from slc_build.preflight import RequiredBase


def prepare(*, required_base: RequiredBase = "any") -> tuple[Image, dict[str, str]]:
    """Check what is needed and put the flavor together.

    Args:
        required_base: what the base image must be.

    Returns:
        The base image, and the SHA-256 of each wheel by file name.

    Raises:
        SlcBuildError: something that it needs is missing.
    """
    base = preflight.check(required_base=required_base)
    say(f"Base image {base.name} ({'pulled' if base.pulled else 'local stand-in'})")
    return base, flavor.prepare(base)


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
    base, wheels = prepare(required_base=required_base)
    say("Building the images and packing the container with exaslct")
    say("That no registry has these images, as exaslct warns, is as it should be")
    builder = SlcBuilder(
        FLAVOR_PREPARED,
        export_path=OUTPUT,
        output_directory=EXASLCT_OUTPUT,
        build_name=version(PACKAGE),
        force_rebuild=force_rebuild,
    )
    with watching(EXASLCT_OUTPUT):
        info = builder.export().export_infos[str(FLAVOR_PREPARED)]["release"]
    container, cached = Path(info.output_file), Path(info.cache_file)
    for older in cached.parent.iterdir():  # exaslct keeps every export for ever
        if older.is_file() and not older.name.startswith(cached.name):
            older.unlink()
    say("Writing checksum, packages, constraints and build information")
    results.write(container, base, wheels)
    return container
