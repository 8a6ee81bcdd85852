"""Whether a port that was taken for plain HTTP is one for HTTPS."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit


def speaks_tls(url: str, timeout_s: float) -> bool:
    """Tell whether a TLS handshake succeeds, whatever the certificate. Nothing else is sent.

    Most servers close a connection that speaks plain HTTP to them without a word, as one that is
    being restarted does; only a handshake tells the two apart.

    Args:
        url: names host and port.
        timeout_s: seconds to wait for the connection, and for each answer.
    """
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or 80
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):  # the latter for host names that cannot be one in TLS
        return False
