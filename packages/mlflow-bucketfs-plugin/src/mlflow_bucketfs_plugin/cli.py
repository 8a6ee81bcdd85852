"""The command ``mlflow-bucketfs``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from mlflow_bucketfs_plugin.scoring.cli import copy, failures, sql


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-bucketfs-plugin")
def main() -> None:
    """MLflow artifacts in Exasol BucketFS."""


main.add_command(sql)
main.add_command(copy)


@main.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--read-only", is_flag=True, help="Write nothing.")
def check(uri: str, *, as_json: bool, read_only: bool) -> None:
    """Check that MLflow can store its artifacts at URI.

    Checks the URI, the environment, the network, TLS and the bucket. Writes, reads and deletes a
    small object below URI. Reports a remedy for each step that fails. Never prints a password.

    The exit status is 0 if no step failed, 1 if a step failed, 2 if the command line cannot be
    parsed.
    """
    from mlflow_bucketfs_plugin.check import run_check  # noqa: PLC0415 -- for a quick --help

    # the report contains the transport's warnings, with a remedy
    logging.getLogger("mlflow_bucketfs_core").addHandler(logging.NullHandler())
    report = run_check(uri, read_only=read_only)
    click.echo(report.to_json() if as_json else report.to_text())
    sys.exit(0 if report.ok else 1)


@main.command("constraints")
@click.argument("model")
@click.argument("constraints", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare_with_constraints(model: str, constraints: Path) -> None:
    """Compare a model's versions with those of a script-language container.

    MODEL is a model's URI, its directory or its requirements.txt; CONSTRAINTS is the
    constraints.txt that comes with the container. A model that was trained with other versions
    can fail to load, or predict other values.

    The exit status is 0 if no version differs, 1 if one differs, 2 if the model cannot be read.
    """
    with failures(exit_status=2):
        from mlflow_bucketfs_plugin.constraints import compare_model  # noqa: PLC0415 -- quick --help
        from mlflow_bucketfs_plugin.sources import fetch  # noqa: PLC0415 -- the same

        found = compare_model(fetch(model), constraints.read_text(encoding="utf-8"))
    for difference in found:
        click.echo(difference)
    if found:
        click.echo(f"To train with the container's versions: pip install -c {constraints} …")
        sys.exit(1)
    click.echo("The model and the container have the same versions.")
