"""The command ``mlflow-bucketfs``."""

from __future__ import annotations

import sys

import click


@click.group()
@click.version_option(package_name="mlflow-bucketfs-plugin")
def main() -> None:
    """MLflow artifacts in Exasol BucketFS."""


@main.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--read-only", is_flag=True, help="Write nothing.")
def check(uri: str, *, as_json: bool, read_only: bool) -> None:
    """Find out whether MLflow can keep its artifacts at URI, and if not, why.

    Goes from the URI through the environment, the network and TLS to the bucket, writes, reads
    and deletes a small object below URI, and says for each step that fails what to change. No
    password is ever printed.

    The exit status is 0 if nothing failed, 1 if something did, 2 if the command was not
    understood.
    """
    from mlflow_bucketfs_plugin.check import run_check  # noqa: PLC0415 -- for a quick --help

    report = run_check(uri, read_only=read_only)
    click.echo(report.to_json() if as_json else report.to_text())
    sys.exit(0 if report.ok else 1)
