"""A certificate like the one Exasol generates at start: self-signed, for one fixed name."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

# Exasol's own certificate names exacluster.local, never the host it runs on (bucketfs-client,
# user guide, "TLS").
NAMES: dict[str, list[x509.GeneralName]] = {
    "exacluster.local": [x509.DNSName("exacluster.local")],
    "localhost": [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ],
}


@dataclass(frozen=True)
class Certificate:
    """A generated certificate.

    Attributes:
        file: the certificate, PEM.
        key_file: its private key, PEM, readable by the owner only.
        fingerprint: SHA-256 of the certificate, lower-case hexadecimal.
    """

    file: Path
    key_file: Path
    fingerprint: str

    def server_context(self) -> ssl.SSLContext:
        """Return a TLS context for a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key_file)
        return context


def generate_certificate(name: str, directory: Path) -> Certificate:
    """Make a self-signed certificate, valid for a year.

    It has the extensions that strict verification requires (the default since Python 3.13).

    Args:
        name: ``exacluster.local`` or ``localhost``.
        directory: existing directory for the two files; files of an earlier call are replaced.

    Raises:
        ValueError: ``name`` is neither of the two.
    """
    if name not in NAMES:
        raise ValueError(f"no certificate for {name!r}: choose one of {', '.join(NAMES)}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.timezone.utc)
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # a day earlier, for clients whose clock is slow
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(NAMES[name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(key_identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier),
            critical=False,
        )
    )
    certificate = builder.sign(key, hashes.SHA256())
    file = directory / "certificate.pem"
    key_file = directory / "private-key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(file, key_file, certificate.fingerprint(hashes.SHA256()).hex())
