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
    "Warning: whoever reaches this machine can read, write and delete here, because the passwords "
    "are public knowledge (user r: read, user w: write)."
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
        host: address to listen on; one that others can reach needs ``allow_remote``.
        port: port for HTTP; 0 picks a free one.
        tls_port: port for HTTPS; None: none.
        buckets: names of the buckets, all with the default passwords.
        service: name of the service.
        data_dir: directory to keep the objects in; None: a temporary one.
        profile: name of a profile.
        allow_remote: whether the host may be reachable for others.
        allowed_hosts: further names that clients may call the server by.

    Raises:
        click.ClickException: The server cannot start; nothing is left behind.
    """
    stop = threading.Event()
    # set before anything exists that must be removed again
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    try:
        is_remote = not _is_loopback(host)
        if is_remote and not allow_remote:
            raise click.ClickException(
                f"others could reach {host}, and the passwords are public knowledge: "
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
            f"{error.host}:{error.port} is in use: stop what listens there, or choose another port "
            f"({option} 0 picks a free one)"
        ) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot serve on {host}: {error}") from error


def _is_loopback(host: str) -> bool:
    addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _usage(server: BucketFSServer, *, tls: bool) -> str:
    """All of it may be pasted into a shell: what is not an export is a comment."""
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
            f"#   SHA-256 fingerprint {server.certificate_fingerprint}",
            f"export EXA_BUCKETFS_CA_BUNDLE={shlex.quote(str(server.certificate_file))}",
            "export EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local",
        ]
    mount_root = shlex.quote(str(server.mount_root))
    lines += [
        "# Only to try the UDF side: whoever sets this reads from the mount, not over HTTP.",
        f"#   export EXA_BUCKETFS_MOUNT_ROOT={mount_root}",
    ]
    return "\n".join(lines)
