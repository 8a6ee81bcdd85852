"""A certificate like the one Exasol generates at start: self-signed, for one fixed name."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
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

_FILE, _KEY_FILE = "certificate.pem", "private-key.pem"
_KEY_MODE = 0o600


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


def load_certificate(name: str, directory: Path) -> Certificate | None:
    """Return the certificate that an earlier `generate_certificate` made, if it can be used.

    Args:
        name: ``exacluster.local`` or ``localhost``.
        directory: directory with the two files.

    Returns:
        None if a file is missing or damaged, the key is not the certificate's, or the certificate
        is for another name or not valid now.

    Raises:
        OSError: a file cannot be read.
    """
    file, key_file = directory / _FILE, directory / _KEY_FILE
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return None
    now = dt.datetime.now(dt.timezone.utc)
    if (
        list(names) != NAMES.get(name)
        or key.public_key() != certificate.public_key()
        or not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    ):
        return None
    key_file.chmod(_KEY_MODE)  # a copied directory may have lost it
    return Certificate(file, key_file, _fingerprint(certificate))


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
    file, key_file = directory / _FILE, directory / _KEY_FILE
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=_KEY_MODE)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(file, key_file, _fingerprint(certificate))


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
