"""The command behind the nox sessions ``package:…``, ``release:check`` and ``test:mlflow``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from release_check import wheels
from release_check.commands import CheckError
from release_check.index import await_requirements
from release_check.paths import DIST, ROOT
from release_check.tag import check_tag


def main() -> int:
    """Do what the command line says; 1 if a check does not pass."""
    options = _parser().parse_args()
    try:
        if options.command == "wheels":
            wheels.check(options.python or list(wheels.PYTHONS))
        elif options.command == "lowest":
            wheels.check_lowest(if_present=options.if_present)
        elif options.command == "mlflow":
            wheels.check_mlflow(options.version, options.pytest)
        else:
            return _check_release(options)
    except CheckError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _check_release(options: argparse.Namespace) -> int:
    release = check_tag(options.tag, options.root, options.repository)
    for problem in release.problems:
        sys.stderr.write(f"{release.project.name}: {problem}\n")
    if release.problems:
        return 1
    if options.index_patience is not None:
        await_requirements(release.project, options.dist, options.index_patience)
    sys.stdout.write(f"{release.entry.notes}\n")
    if options.notes is not None:
        options.notes.write_text(f"{release.entry.notes}\n", encoding="utf-8")
    if options.outputs is not None:
        with options.outputs.open("a", encoding="utf-8") as outputs:
            stem = release.project.name.replace("-", "_")
            outputs.write(f"files={stem}-{release.project.version}*\n")
            outputs.write(f"package={release.project.name}\n")
            outputs.write(f"version={release.project.version}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m release_check", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    built = commands.add_parser("wheels", help="build, install alone, test the wheels")
    built.add_argument("python", nargs="*", help=f"versions, default {wheels.PYTHONS}")
    low = commands.add_parser("lowest", help="test the lowest versions that the metadata allows")
    low.add_argument("--if-present", action="store_true", help="pass where the Python is missing")
    mlflow = commands.add_parser("mlflow", help="test with one version of MLflow")
    mlflow.add_argument("version", nargs="?", default="newest", help="default: newest")
    mlflow.add_argument("pytest", nargs=argparse.REMAINDER, help="arguments for pytest")
    tag = commands.add_parser("tag", help="what a tag would release, and whether it may")
    tag.add_argument("tag", help="PACKAGE-vVERSION; or PACKAGE, to rehearse")
    tag.add_argument("--root", type=Path, default=ROOT, help="the repository's directory")
    tag.add_argument("--repository", metavar="OWNER/NAME", help="that the links must lead to")
    tag.add_argument("--dist", type=Path, default=DIST, help="where the built wheel is")
    tag.add_argument(
        "--index-patience",
        type=float,
        metavar="SECONDS",
        help="wait so long until the index has all that the wheel in --dist requires",
    )
    tag.add_argument("--notes", type=Path, help="write the release's text into this file")
    tag.add_argument("--outputs", type=Path, help="append package, version, files to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
