"""The certificate that a server shows, whoever issued it and whatever it says."""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

CONNECT_TIMEOUT_S = 4.0

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL: an expired certificate must be readable too.
_NO_CHECK_TIME = 0x200000


@dataclass(frozen=True)
class Certificate:
    """A certificate as presented, not verified.

    Attributes:
        fingerprint: SHA-256 in the notation of ``openssl x509 -fingerprint``.
        names: DNS names and addresses that it is for; empty if it has none, as without the
            fields below if it could not be decoded.
        subject: whom it is for.
        issuer: who signed it.
        not_before: ISO date from which on it is valid.
        not_after: ISO date until which it is valid.
    """

    fingerprint: str
    names: tuple[str, ...] = ()
    subject: str | None = None
    issuer: str | None = None
    not_before: str | None = None
    not_after: str | None = None

    def as_details(self) -> dict[str, Any]:
        """Return the facts for a report."""
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
        host: where to connect.
        port: where to connect.
        server_name: the name to ask for.

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
    """Decode a certificate by a second handshake in which it alone is trusted.

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
