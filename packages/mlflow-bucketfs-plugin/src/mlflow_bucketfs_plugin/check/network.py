"""The steps to the server: name resolution, connection, TLS, and whether it is BucketFS."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_core.bucket import list_buckets
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    BucketFSError,
    ConfigurationError,
    TlsError,
    TransferError,
)
from mlflow_bucketfs_core.http.route import proxy_for, speaks_tls
from mlflow_bucketfs_core.uri import default_port

from mlflow_bucketfs_plugin.check.local import unchecked_service_advice
from mlflow_bucketfs_plugin.check.report import Finding, StepFailedError
from mlflow_bucketfs_plugin.check.tls import (
    CONNECT_TIMEOUT_S,
    Certificate,
    presented_certificate,
    refused_finding,
    verified_finding,
)

if TYPE_CHECKING:
    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

    from mlflow_bucketfs_plugin.check.steps import Facts

_BUCKET_NAME = re.compile(r"[\w.-]+")
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class NextHop:
    """The host and port that this machine connects to.

    Attributes:
        host: host of the server or the proxy.
        port: port of the server or the proxy.
        through_proxy: whether they are the proxy's.
    """

    host: str
    port: int
    through_proxy: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'the proxy ' if self.through_proxy else ''}{host}:{self.port}"


@dataclass(frozen=True)
class Response:
    """The server's response to a request for its buckets.

    Attributes:
        buckets: the lines of the response.
        error: the error, if there was no response.
    """

    buckets: tuple[str, ...] = ()
    error: BucketFSError | None = None


def _ask(uri: BucketFSUri, settings: ConnectionSettings) -> Response:
    try:
        return Response(tuple(list_buckets(uri, settings)))
    except BucketFSError as error:
        return Response(error=error)


def _ask_without_password(uri: BucketFSUri, settings: ConnectionSettings) -> Response:
    """Request the buckets once, without the password, to diagnose an error."""
    return _ask(uri, replace(settings, password=None, max_retries=0, allowed_hosts=None))


def check_resolve(facts: Facts) -> Finding:
    """Resolve the host of the server, or of the proxy that is set in the environment."""
    uri = facts.host
    next_hop = _next_hop(uri)
    try:
        found = socket.getaddrinfo(next_hop.host, next_hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StepFailedError(
            Finding(
                f"the host of {next_hop} does not resolve ({error})",
                "failed",
                _proxy_remedy(uri)
                if next_hop.through_proxy
                else "Correct the host in the URI, or use a network in which it resolves.",
            )
        ) from error
    addresses = sorted({str(address[0]) for *_, address in found})
    details = {"addresses": addresses, "proxy": str(next_hop) if next_hop.through_proxy else None}
    facts.next_hop = next_hop
    return Finding(f"{next_hop} is {', '.join(addresses)}", details=details)


def _next_hop(uri: BucketFSUri) -> NextHop:
    proxy = proxy_for(uri.endpoint)
    if proxy is None:
        return NextHop(uri.host, uri.port)
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or _PROXY_PORTS.get(parts.scheme, 80)
        return NextHop(parts.hostname or "", port, through_proxy=True)
    except ValueError:
        # neither the URL nor the error's text is shown: there may be a password in them
        raise StepFailedError(
            Finding(
                "the proxy's URL in the environment cannot be parsed",
                "failed",
                _proxy_remedy(uri),
            )
        ) from None


def _proxy_remedy(uri: BucketFSUri) -> str:
    return (
        "Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or add "
        f"{uri.host} to NO_PROXY to connect without a proxy."
    )


def check_connect(facts: Facts) -> Finding:
    """Open a TCP connection."""
    uri, next_hop = facts.host, facts.next_hop
    try:
        with socket.create_connection(
            (next_hop.host, next_hop.port), CONNECT_TIMEOUT_S
        ) as connection:
            address = connection.getpeername()[0]
    except OSError as error:
        is_silent = isinstance(error, TimeoutError)
        reason = f"no response in {CONNECT_TIMEOUT_S:.0f} s" if is_silent else str(error)
        if next_hop.through_proxy:
            remedy = _proxy_remedy(uri)
        elif is_silent:
            remedy = "Is the host up, and does a firewall let this port through?"
        else:
            remedy = _other_ports(uri)
        raise StepFailedError(
            Finding(f"no connection to {next_hop} ({reason})", "failed", remedy)
        ) from error
    facts.is_connected = True
    return Finding(f"connected to {next_hop}", details={"address": address})


def _other_ports(uri: BucketFSUri) -> str:
    """Propose a default port of BucketFS that accepts connections, if there is one."""
    for tls in (uri.tls, not uri.tls):  # the smallest change of the URI first
        port = default_port(tls=tls)
        try:
            with socket.create_connection((uri.host, port), timeout=1):
                other = replace(_with_tls(uri, tls=tls), port=port)
                return f"Port {port} accepts connections there. Try {other}"
        except OSError:
            continue
    return (
        "Is BucketFS running there, and is the port right (by default 2580 for exa+bfs://, "
        "2581 for exa+bfss://)? Since Exasol 8.29, only port 2581 for HTTPS is open by default."
    )


def _with_tls(uri: BucketFSUri, *, tls: bool) -> BucketFSUri:
    return replace(uri, scheme=uri.scheme[: -1 if uri.tls else None] + ("s" if tls else ""))


def check_tls(facts: Facts) -> Finding:
    """Check that TLS works with these settings; if not, report the certificate.

    Raises:
        ConfigurationError: certificates or a proxy that a variable names cannot be used.
        StepFailedError: the TLS handshake failed.
    """
    uri, settings = facts.host, facts.settings
    if not uri.tls:
        facts.response = None
        return Finding(f"{uri.scheme}:// is plain HTTP", "skipped")
    certificate = None if facts.next_hop.through_proxy else _certificate(uri, settings)
    response = _ask(uri, settings)
    if isinstance(response.error, ConfigurationError):
        raise response.error
    if isinstance(response.error, TlsError):

        def works_with(changed: ConnectionSettings) -> bool:
            return not isinstance(_ask_without_password(uri, changed).error, TlsError)

        return refused_finding(uri, settings, certificate, response.error, works_with)
    facts.response = response
    if response.error is not None and certificate is None:
        return Finding("not known: no response through the proxy", "skipped")
    return verified_finding(settings, certificate)


def _certificate(uri: BucketFSUri, settings: ConnectionSettings) -> Certificate:
    try:
        return presented_certificate(uri.host, uri.port, settings.tls_hostname or uri.host)
    except OSError as error:
        plain = _with_tls(uri, tls=False)
        if _ask_without_password(plain, settings).error is None:
            finding = Finding(
                f"{uri.authority} speaks plain HTTP, not HTTPS", "failed", f"Use {plain}"
            )
        else:
            finding = Finding(
                f"no TLS handshake with {uri.authority} ({error})",
                "failed",
                "Is this the port for HTTPS (2581 by default)?",
            )
        raise StepFailedError(finding) from error


def check_service(facts: Facts) -> Finding:
    """Check that the server is BucketFS.

    Raises:
        BucketFSError: the request for the buckets failed for a reason without a finding.
    """
    uri, settings = facts.host, facts.settings
    response = facts.response or _ask(uri, settings)
    error = response.error
    if isinstance(error, AuthenticationError | AccessDeniedError):
        facts.buckets = ()
        summary = f"{uri.authority} does not show its buckets: {error}"
        return Finding(summary, "warning", unchecked_service_advice(uri, settings))
    if error is not None:
        is_direct = not (uri.tls or facts.next_hop.through_proxy)
        if (
            is_direct
            and isinstance(error, TransferError)
            and speaks_tls(uri.endpoint, CONNECT_TIMEOUT_S)
        ):
            summary = f"{uri.authority} speaks HTTPS, not plain HTTP"
            return Finding(summary, "failed", f"Use {_with_tls(uri, tls=True)}")
        raise error
    if not all(_BUCKET_NAME.fullmatch(name) for name in response.buckets):
        return Finding(
            f"the server at {uri.authority} is not BucketFS",
            "failed",
            "Correct host and port: BucketFS's own ports are 2580 for HTTP, 2581 for HTTPS.",
        )
    facts.buckets = response.buckets
    names = ", ".join(response.buckets) or "none"
    # the step 'list' has the advice for a bucket that does not exist
    remedy = unchecked_service_advice(uri, settings) if uri.bucket in response.buckets else None
    details = {"buckets": list(response.buckets)}
    return Finding(f"BucketFS with the buckets: {names}", remedy=remedy, details=details)
