"""The steps to the server: name, connection, TLS, and whether BucketFS is what answers."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from functools import partial
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
from mlflow_bucketfs_core.http.pool import proxy_for
from mlflow_bucketfs_core.uri import default_port

from mlflow_bucketfs_plugin.check.certificate import (
    CONNECT_TIMEOUT_S,
    Certificate,
    presented_certificate,
)
from mlflow_bucketfs_plugin.check.names_advice import for_unchecked_service
from mlflow_bucketfs_plugin.check.report import Finding
from mlflow_bucketfs_plugin.check.steps import StepFailedError
from mlflow_bucketfs_plugin.check.tls_advice import verified_by, why_refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

_BUCKET_NAME = re.compile(r"[\w.-]+")
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Route:
    """Where this machine connects to.

    Attributes:
        host: the server's, or the proxy's.
        port: the server's, or the proxy's.
        through_proxy: whether it is the proxy's.
    """

    host: str
    port: int
    through_proxy: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'the proxy ' if self.through_proxy else ''}{host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """What the server answered to the question for its buckets.

    Attributes:
        buckets: the lines of its answer.
        error: why there is none.
    """

    buckets: tuple[str, ...] = ()
    error: BucketFSError | None = None


def _ask(uri: BucketFSUri, settings: ConnectionSettings) -> Answer:
    try:
        return Answer(tuple(list_buckets(uri, settings)))
    except BucketFSError as error:
        return Answer(error=error)


def _ask_without_password(uri: BucketFSUri, settings: ConnectionSettings) -> Answer:
    """Try something that the user did not ask for: once, and nothing secret goes along."""
    return _ask(uri, replace(settings, password=None, max_retries=0, allowed_hosts=None))


def check_resolve(uri: BucketFSUri) -> tuple[Route, Finding]:
    """Find the addresses of the server, or of the proxy that the environment puts before it."""
    route = _route(uri)
    try:
        found = socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StepFailedError(
            Finding(
                f"the host of {route} is not known ({error})",
                "failed",
                _proxy_remedy(uri)
                if route.through_proxy
                else "Correct the host in the URI, or ask from a network that knows it.",
            )
        ) from error
    addresses = sorted({str(address[0]) for *_, address in found})
    details = {"addresses": addresses, "proxy": str(route) if route.through_proxy else None}
    return route, Finding(f"{route} is {', '.join(addresses)}", details=details)


def _route(uri: BucketFSUri) -> Route:
    proxy = proxy_for(uri.endpoint)
    if proxy is None:
        return Route(uri.host, uri.port)
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or _PROXY_PORTS.get(parts.scheme, 80)
        return Route(parts.hostname or "", port, through_proxy=True)
    except ValueError:
        # neither the URL nor the error's text is shown: there may be a password in them
        raise StepFailedError(
            Finding(
                "the environment names a proxy by a URL that cannot be parsed",
                "failed",
                _proxy_remedy(uri),
            )
        ) from None


def _proxy_remedy(uri: BucketFSUri) -> str:
    return (
        "Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or add "
        f"{uri.host} to NO_PROXY if it is to be reached without a proxy."
    )


def check_connect(uri: BucketFSUri, route: Route) -> tuple[Route, Finding]:
    """Open a TCP connection."""
    try:
        with socket.create_connection((route.host, route.port), CONNECT_TIMEOUT_S) as connection:
            address = connection.getpeername()[0]
    except OSError as error:
        is_silent = isinstance(error, TimeoutError)
        reason = f"no answer in {CONNECT_TIMEOUT_S:.0f} s" if is_silent else str(error)
        if route.through_proxy:
            remedy = _proxy_remedy(uri)
        elif is_silent:
            remedy = "Is the host up, and does a firewall let this port through?"
        else:
            remedy = _other_ports(uri)
        raise StepFailedError(
            Finding(f"no connection to {route} ({reason})", "failed", remedy)
        ) from error
    return route, Finding(f"connected to {route}", details={"address": address})


def _other_ports(uri: BucketFSUri) -> str:
    """Say at which of BucketFS's own ports something listens, if it does."""
    for tls in (uri.tls, not uri.tls):  # what needs the least change in the URI comes first
        port = default_port(tls=tls)
        try:
            with socket.create_connection((uri.host, port), timeout=1):
                other = replace(_with_tls(uri, tls=tls), port=port)
                return f"Something listens at port {port} there. Try {other}"
        except OSError:
            continue
    return (
        "Is BucketFS running there, and is the port right (by default 2580 for exa+bfs://, "
        "2581 for exa+bfss://)? Since Exasol 2025.1 only 2581 is open by default."
    )


def _with_tls(uri: BucketFSUri, *, tls: bool) -> BucketFSUri:
    return replace(uri, scheme=uri.scheme[: -1 if uri.tls else None] + ("s" if tls else ""))


def check_tls(
    uri: BucketFSUri, settings: ConnectionSettings, route: Route
) -> tuple[Callable[[], Answer], Finding]:
    """Make sure that TLS works with these settings, or say what the certificate is like.

    Returns:
        How to get the server's answer, which for HTTPS is there already.

    Raises:
        ConfigurationError: the CA bundle does not exist.
    """
    if not uri.tls:
        return partial(_ask, uri, settings), Finding(f"{uri.scheme}:// is plain HTTP", "skipped")
    certificate = None if route.through_proxy else _certificate(uri, settings)
    answer = _ask(uri, settings)
    if isinstance(answer.error, ConfigurationError):
        raise answer.error
    if isinstance(answer.error, TlsError):

        def works_with(changed: ConnectionSettings) -> bool:
            return not isinstance(_ask_without_password(uri, changed).error, TlsError)

        raise StepFailedError(why_refused(uri, settings, certificate, answer.error, works_with))
    if answer.error is not None and certificate is None:
        finding = Finding("not known: nothing comes through the proxy", "skipped")
    else:
        finding = verified_by(settings, certificate)
    return lambda: answer, finding


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


def check_service(
    uri: BucketFSUri, settings: ConnectionSettings, route: Route, ask: Callable[[], Answer]
) -> tuple[tuple[str, ...], Finding]:
    """Make sure that BucketFS is what answers.

    Args:
        uri: where it should be.
        settings: credentials and the like.
        route: how it is reached.
        ask: see :func:`check_tls`.

    Returns:
        The names of its buckets.

    Raises:
        BucketFSError: something else is wrong.
    """
    answer = ask()
    error = answer.error
    if isinstance(error, AuthenticationError | AccessDeniedError):
        summary = f"{uri.authority} does not tell its buckets: {error}"
        return (), Finding(summary, "warning", for_unchecked_service(uri, settings))
    if error is not None:
        if isinstance(error, TransferError) and not (uri.tls or route.through_proxy):
            _refuse_https(uri, settings, error)
        raise error
    if not all(_BUCKET_NAME.fullmatch(name) for name in answer.buckets):
        raise StepFailedError(
            Finding(
                f"something answers at {uri.authority}, but it is not BucketFS",
                "failed",
                "Correct host and port: BucketFS's own ports are 2580 for HTTP, 2581 for HTTPS.",
            )
        )
    names = ", ".join(answer.buckets) or "none"
    details = {"buckets": list(answer.buckets)}
    summary = f"BucketFS with the buckets: {names}"
    # of a bucket that does not exist the step 'list' says more
    remedy = for_unchecked_service(uri, settings) if uri.bucket in answer.buckets else None
    return answer.buckets, Finding(summary, remedy=remedy, details=details)


def _refuse_https(uri: BucketFSUri, settings: ConnectionSettings, error: BucketFSError) -> None:
    try:
        presented_certificate(uri.host, uri.port, settings.tls_hostname or uri.host)
    except OSError:
        return
    raise StepFailedError(
        Finding(
            f"{uri.authority} speaks HTTPS, not plain HTTP",
            "failed",
            f"Use {_with_tls(uri, tls=True)}",
        )
    ) from error
