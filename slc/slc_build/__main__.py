"""The command behind the nox sessions ``slc:engine``, ``slc:base`` and ``slc:export``."""

from __future__ import annotations

import argparse
import sys

from slc_build import engine, standin
from slc_build.progress import SlcBuildError, say

_ENGINE = {
    "start": engine.start,
    "stop": engine.stop,
    "status": engine.status,
    "remove": engine.remove,
}


def main() -> int:
    """Do what the command line says; 1 if it cannot be done."""
    options = _parser().parse_args()
    try:
        if options.command == "engine":
            _ENGINE[options.action]()
        elif options.command == "base":
            standin.ensure()
        else:
            _export(options)
    except SlcBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _export(options: argparse.Namespace) -> None:
    # Here, because only this command needs the packages of the group `slc`
    from slc_build import results  # noqa: PLC0415
    from slc_build.export import export, prepare  # noqa: PLC0415

    if options.prepare_only:
        prepare(required_base=options.required_base)
        return
    export(required_base=options.required_base, force_rebuild=options.force_rebuild)
    say(results.summary())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slc_build", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    private = commands.add_parser("engine", help="a private Docker engine, where none runs")
    private.add_argument("action", choices=_ENGINE, help="remove: stop it and delete its images")
    commands.add_parser("base", help="a stand-in for the base image, where there is none")
    exporting = commands.add_parser("export", help="build the container and write it to .slc")
    helps = {"official": "refuse a local stand-in", "committed": "and any other digest than ours"}
    for required, text in helps.items():
        option, dest = f"--require-{required}-base", "required_base"
        exporting.add_argument(
            option, dest=dest, action="store_const", const=required, default="any", help=text
        )
    exporting.add_argument(
        "--force-rebuild", action="store_true", help="build anew although nothing has changed"
    )
    exporting.add_argument(
        "--prepare-only", action="store_true", help="only put the flavor together"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
