"""What to say about a certificate: by what it was verified, or which variable makes it so."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.uri import is_host_name

from mlflow_bucketfs_plugin.check.report import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

    from mlflow_bucketfs_plugin.check.certificate import Certificate

_MOST_WRAPPINGS = 10  # chains of causes can go round in circles
_COMPARE = (
    "Anybody can show a certificate. So compare first, on the server: "
    "openssl x509 -in /exa/etc/ssl/ssl.crt -noout -fingerprint -sha256"
)


def verified_by(settings: ConnectionSettings, certificate: Certificate | None) -> Finding:
    """Report a handshake that succeeded.

    Args:
        settings: what it succeeded with.
        certificate: ``None`` if a proxy hides it.
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
        remedy = "Unset EXA_SSL_CERT_VALIDATION: whoever is between can read the password."
        if certificate:
            remedy += (
                f" Set EXA_BUCKETFS_CERT_FINGERPRINT={certificate.fingerprint} instead.\n{_COMPARE}"
            )
        return Finding("the certificate is not verified", "warning", remedy, details)
    return Finding(f"certificate verified by {by}{until}", details=details)


def why_refused(
    uri: BucketFSUri,
    settings: ConnectionSettings,
    certificate: Certificate | None,
    error: Exception,
    works_with: Callable[[ConnectionSettings], bool],
) -> Finding:
    """Report a certificate that was refused.

    Args:
        uri: where it was shown.
        settings: what it was refused with.
        certificate: ``None`` if a proxy hides it.
        error: why it was refused.
        works_with: tries other settings, without the password.
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
    # Somebody pastes the name into a shell, and anybody can put anything into a certificate.
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
    """Return what OpenSSL says, without what others wrapped around it."""
    for _ in range(_MOST_WRAPPINGS):
        if (inner := error.__cause__ or error.__context__) is None:
            break
        error = inner
    return getattr(error, "verify_message", str(error))
