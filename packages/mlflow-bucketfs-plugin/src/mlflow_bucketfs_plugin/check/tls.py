"""Report a server's certificate, and the variables with which it is accepted."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_core.uri import is_host_name

from mlflow_bucketfs_plugin.check.report import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

CONNECT_TIMEOUT_S = 4.0

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL: an expired certificate must be readable too.
_NO_CHECK_TIME = 0x200000
_MOST_WRAPPINGS = 10  # chains of causes can be circular
_COMPARE = (
    "Any server can present a certificate. Compare this one first, on the server: "
    "openssl x509 -in /exa/etc/ssl/ssl.crt -noout -fingerprint -sha256"
)


@dataclass(frozen=True)
class Certificate:
    """A certificate as presented, not verified.

    Attributes:
        fingerprint: SHA-256 in the notation of ``openssl x509 -fingerprint``.
        names: its DNS names and addresses; empty if it has none or could not be decoded.
        subject: its subject; like the fields below, ``None`` if it could not be decoded.
        issuer: its issuer.
        not_before: ISO date of the first day on which it is valid.
        not_after: ISO date of the last day on which it is valid.
    """

    fingerprint: str
    names: tuple[str, ...] = ()
    subject: str | None = None
    issuer: str | None = None
    not_before: str | None = None
    not_after: str | None = None

    def as_details(self) -> dict[str, Any]:
        """Return the fields by their names in a report."""
        return {
            "names": list(self.names),
            "subject": self.subject,
            "issuer": self.issuer,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "sha256": self.fingerprint,
        }


def presented_certificate(host: str, port: int, server_name: str) -> Certificate:
    """Fetch a server's certificate without verifying it; nothing is sent beyond the handshake.

    Args:
        host: the host to connect to.
        port: the port to connect to.
        server_name: the host name in the handshake (SNI).

    Raises:
        OSError: no connection, or no TLS handshake (``ssl.SSLError``).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _handshake(context, host, port, server_name) as connection:
        der = connection.getpeercert(binary_form=True) or b""
    decoded = _decode(der, host, port, server_name)
    return Certificate(
        fingerprint=hashlib.sha256(der).digest().hex(":").upper(),
        names=tuple(value for _, value in decoded.get("subjectAltName", ())),
        subject=_name(decoded.get("subject")),
        issuer=_name(decoded.get("issuer")),
        not_before=_date(decoded.get("notBefore")),
        not_after=_date(decoded.get("notAfter")),
    )


def _decode(der: bytes, host: str, port: int, server_name: str) -> dict[str, Any]:
    """Decode a certificate by a second handshake that trusts only this certificate.

    Python decodes only certificates that it has verified.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der))
        with _handshake(context, host, port, server_name) as connection:
            return connection.getpeercert() or {}
    except OSError:
        return {}


def _handshake(context: ssl.SSLContext, host: str, port: int, server_name: str) -> ssl.SSLSocket:
    connection = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
    try:
        return context.wrap_socket(connection, server_hostname=server_name)
    except BaseException:
        connection.close()
        raise


def _name(parts: Any) -> str | None:
    if parts is None:
        return None
    return ", ".join(f"{key}={value}" for part in parts for key, value in part)


def _date(text: str | None) -> str | None:
    if text is None:
        return None
    moment = datetime.fromtimestamp(ssl.cert_time_to_seconds(text), tz=timezone.utc)
    return moment.date().isoformat()


def verified_finding(settings: ConnectionSettings, certificate: Certificate | None) -> Finding:
    """Return the finding for a successful handshake.

    Args:
        settings: the settings of the handshake.
        certificate: the server's certificate; ``None`` if a proxy hides it.
    """
    details = certificate.as_details() if certificate else {}
    until = f", valid until {certificate.not_after}" if certificate else ""
    if settings.cert_fingerprint:
        by = "EXA_BUCKETFS_CERT_FINGERPRINT"
    elif settings.ca_bundle:
        by = "EXA_BUCKETFS_CA_BUNDLE"
    elif settings.verify_tls:
        bundles = [v for v in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(v)]
        by = bundles[0] if bundles else "the public certificate authorities"
    else:
        remedy = (
            "Unset EXA_SSL_CERT_VALIDATION: without verification, others can read the password."
        )
        if certificate:
            remedy += (
                f" Set EXA_BUCKETFS_CERT_FINGERPRINT={certificate.fingerprint} instead.\n{_COMPARE}"
            )
        return Finding("the certificate is not verified", "warning", remedy, details)
    return Finding(f"certificate verified by {by}{until}", details=details)


def refused_finding(
    uri: BucketFSUri,
    settings: ConnectionSettings,
    certificate: Certificate | None,
    error: Exception,
    works_with: Callable[[ConnectionSettings], bool],
) -> Finding:
    """Return the finding for a rejected certificate.

    Args:
        uri: the URI of the server.
        settings: the settings of the handshake.
        certificate: the server's certificate; ``None`` if a proxy hides it.
        error: the error of the handshake.
        works_with: returns whether other settings work, without sending the password.
    """
    if certificate is None:
        return Finding(str(error), "failed")
    details = certificate.as_details()
    pin = f"EXA_BUCKETFS_CERT_FINGERPRINT={certificate.fingerprint}"
    if settings.cert_fingerprint not in {None, certificate.fingerprint.replace(":", "").lower()}:
        summary = "the certificate is not the one in EXA_BUCKETFS_CERT_FINGERPRINT"
        remedy = f"{_COMPARE}\nIf the server has a new one, set {pin}"
        return Finding(summary, "failed", remedy, details)
    expected = (settings.tls_hostname or uri.host).lower()
    # users paste the name into a shell, and a certificate can contain any text
    names = [name for name in certificate.names if is_host_name(name)]
    is_named = expected in (name.lower() for name in certificate.names)
    other = None if is_named or not names else names[0]
    if other and works_with(replace(settings, tls_hostname=other)):
        summary = f"the certificate is for {other}, not for {expected}"
        remedy = f"If that is your server, set EXA_BUCKETFS_TLS_HOSTNAME={other}"
        return Finding(summary, "failed", remedy, details)
    bundle = "EXA_BUCKETFS_CA_BUNDLE=<copy of the server's /exa/etc/ssl/ssl.crt>"
    if other:
        bundle += f" and EXA_BUCKETFS_TLS_HOSTNAME={other}"
    return Finding(
        f"the certificate is not trusted: {_reason(error)}",
        "failed",
        f"{_COMPARE}\nIf they are the same, set {pin}\nOr set {bundle}",
        details,
    )


def _reason(error: BaseException) -> str:
    """Return OpenSSL's reason from the errors that libraries wrapped around it."""
    for _ in range(_MOST_WRAPPINGS):
        if (inner := error.__cause__ or error.__context__) is None:
            break
        error = inner
    return getattr(error, "verify_message", str(error))
