"""The command ``mlflow-bucketfs-testing``; each subcommand imports its module when it runs."""

from __future__ import annotations

from typing import IO

import click

from mlflow_bucketfs_testing import REFERENCE_CLIENT


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-bucketfs-testing")
def main() -> None:
    """Try MLflow on Exasol BucketFS without Exasol."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=2580, show_default=True, help="Port for HTTP; 0 picks a free one.")
@click.option("--tls-port", type=int, help="Port for HTTPS too (usually 2581); 0 picks a free one.")
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    default=["default"],
    show_default=True,
    help="Bucket to serve; may be repeated.",
)
@click.option("--service", default="bfsdefault", show_default=True, help="Name of the service.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    help="Directory that keeps the objects and the certificate.  [default: a temporary one]",
)
@click.option(
    "--profile",
    type=click.Choice(["instant", "docker-db"]),
    default="instant",
    show_default=True,
    help="docker-db: the delays of a database in Docker.",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --host that other machines reach.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Further host name to accept in requests, such as host.docker.internal; may be repeated.",
)
def serve(
    *,
    host: str,
    port: int,
    tls_port: int | None,
    buckets: tuple[str, ...],
    service: str,
    data_dir: str | None,
    profile: str,
    allow_remote: bool,
    allowed_hosts: tuple[str, ...],
) -> None:
    """Run an embedded BucketFS until Ctrl-C.

    Prints the URIs and the environment variables that clients need. The passwords are public:
    user r with password read, user w with password write.
    """
    from mlflow_bucketfs_testing.serve import run_server  # noqa: PLC0415 -- not for --help

    run_server(
        host=host,
        port=port,
        tls_port=tls_port,
        buckets=buckets,
        service=service,
        data_dir=data_dir,
        profile=profile,
        allow_remote=allow_remote,
        allowed_hosts=allowed_hosts,
    )


@main.command()
@click.option("--keep", is_flag=True, help="Leave both servers running until Ctrl-C.")
@click.pass_context
def demo(context: click.Context, *, keep: bool) -> None:
    """Log a model into an embedded BucketFS with a real MLflow server, and load it back."""
    from mlflow_bucketfs_testing.demo import run_demo  # noqa: PLC0415 -- not for --help

    context.exit(0 if run_demo(keep=keep) else 1)


@main.command()
@click.argument("script", type=click.File(encoding="utf-8"))
@click.option(
    "--input",
    "rows",
    type=click.File(encoding="utf-8-sig", lazy=False),
    help="CSV file with a column for each parameter, by name, or - for standard input. An empty "
    "field is NULL. Not needed for scripts without parameters.",
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    multiple=True,
    help="Column of the CSV file to group by; may be repeated.",
)
@click.option(
    "--buckets",
    type=click.Path(exists=True, file_okay=False),
    help="Directory of the buckets for the script; it contains SERVICE/BUCKET/...",
)
@click.option(
    "--client",
    default=REFERENCE_CLIENT,
    show_default=True,
    help="Client that runs the script: reference, slc:FILE for the client of an exported "
    "container, or the path of an exaudfclient.",
)
@click.option(
    "--timeout", default=120.0, show_default=True, help="Timeout of the script, in seconds."
)
def udf(
    *,
    script: IO[str],
    rows: IO[str] | None,
    group_by: tuple[str, ...],
    buckets: str | None,
    client: str,
    timeout: float,
) -> None:
    """Run the UDF in the file SCRIPT, a CREATE SCRIPT statement, without a database.

    Prints the returned or emitted rows as CSV, and the script's own output on standard error.
    """
    from mlflow_bucketfs_testing.udf.command import run_script  # noqa: PLC0415 -- not for --help

    run_script(script, rows, group_by=group_by, buckets=buckets, client=client, timeout_s=timeout)
