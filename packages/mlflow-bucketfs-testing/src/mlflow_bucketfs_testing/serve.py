"""``mlflow-bucketfs-testing serve``: the embedded BucketFS in the foreground."""

from __future__ import annotations

import ipaddress
import shlex
import signal
import socket
import threading

import click

from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, PortInUseError

_WARNING = (
    "Warning: every machine that reaches this address can read, write and delete objects, because "
    "the passwords are public (user r: read, user w: write)."
)


def run_server(
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
    """Serve until SIGINT or SIGTERM, after printing how to use the server.

    Args:
        host: address to listen on; one other than loopback needs ``allow_remote``.
        port: port for HTTP; 0 picks a free one.
        tls_port: port for HTTPS; None: none.
        buckets: names of the buckets, all with the default passwords.
        service: name of the service.
        data_dir: directory to keep the objects and the certificate in; None: a temporary one.
        profile: name of a profile.
        allow_remote: whether other machines may reach the host.
        allowed_hosts: further host names to accept in requests.

    Raises:
        click.ClickException: the server cannot start; nothing is left behind.
    """
    stop = threading.Event()
    # set before anything is created that must be removed
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    try:
        is_remote = not _is_loopback(host)
        if is_remote and not allow_remote:
            raise click.ClickException(
                f"other machines can reach {host}, and the passwords are public: "
                "use a loopback address, or add --allow-remote"
            )
        with BucketFSServer(
            [BucketConfig(name) for name in buckets],
            service=service,
            host=host,
            port=port,
            tls_port=tls_port,
            data_dir=data_dir,
            profile=profile,
            allowed_hosts=allowed_hosts,
        ) as server:
            if is_remote:
                click.echo(_WARNING, err=True)
            click.echo(_usage(server, tls=tls_port is not None))
            stop.wait()
    except PortInUseError as error:
        option = "--port" if error.port == port else "--tls-port"
        raise click.ClickException(
            f"{error.host}:{error.port} is in use: stop the server that listens on it, "
            f"or choose another port ({option} 0 picks a free one)"
        ) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot serve on {host}: {error}") from error


def _is_loopback(host: str) -> bool:
    addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _usage(server: BucketFSServer, *, tls: bool) -> str:
    """Return the instructions as a shell script of ``export`` commands and comments."""
    names = [bucket.name for bucket in server.buckets]
    lines = [
        "# BucketFS is running; Ctrl-C stops it. In another terminal:",
        *(f"#   {server.uri(name)}" for name in names),
        "export EXA_BUCKETFS_USER=w",
        "export EXA_BUCKETFS_PASSWORD=write",
    ]
    if tls:
        lines += [
            "# Over HTTPS:",
            *(f"#   {server.tls_uri(name)}" for name in names),
            f"export EXA_BUCKETFS_CERT_FINGERPRINT={server.certificate_fingerprint}",
            f"export EXA_BUCKETFS_CA_BUNDLE={shlex.quote(str(server.certificate_file))}",
            "export EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local",
        ]
    mount_root = shlex.quote(str(server.mount_root))
    lines += [
        "# Only to read as a UDF does: with this variable, clients use the mount, not HTTP.",
        f"#   export EXA_BUCKETFS_MOUNT_ROOT={mount_root}",
    ]
    return "\n".join(lines)
