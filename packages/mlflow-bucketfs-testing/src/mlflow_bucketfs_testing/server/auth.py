"""Who may do what: buckets, their two users, HTTP Basic, and the host names of the server."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from mlflow_bucketfs_testing.errors import Secret
from mlflow_bucketfs_testing.server.names import IllegalNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_USER = "r"
WRITE_USER = "w"


@dataclass(frozen=True)
class BucketConfig:
    """A bucket and its passwords (the defaults are public knowledge).

    Attributes:
        name: Bucket name, the first segment of its URLs.
        public: Whether reading needs no password (docs.exasol.com, BucketFS "Access control").
        read_password: Password of the user ``r``: may read.
        write_password: Password of the user ``w``: may read and write.
    """

    name: str
    public: bool = True
    read_password: str = field(default="read", repr=False)
    write_password: str = field(default="write", repr=False)

    def __post_init__(self) -> None:
        """Refuse a name that cannot be one path segment, and hide the passwords.

        Raises:
            ValueError: The name is empty, ``.`` or ``..``, or contains a slash.
        """
        if self.name in {"", ".", ".."} or "/" in self.name:
            raise ValueError(f"not a bucket name: {self.name!r}")
        object.__setattr__(self, "read_password", Secret(self.read_password))
        object.__setattr__(self, "write_password", Secret(self.write_password))

    def may_read(self, credentials: Credentials | None) -> bool:
        """Whether these credentials may list and download.

        A public bucket does not look at them: a wrong read password is answered with 200
        (bucketfs-java, SyncAwareBucketIT).
        """
        return (
            self.public
            or self.may_write(credentials)
            or credentials == (READ_USER, self.read_password)
        )

    def may_write(self, credentials: Credentials | None) -> bool:
        """Whether these credentials may upload and delete."""
        return credentials == (WRITE_USER, self.write_password)


class Credentials(NamedTuple):
    """User and password of a request."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


def parse_basic(header: str | None) -> Credentials | None:
    """Read an ``Authorization`` header.

    Returns:
        The credentials; None if the header is missing, of another scheme or malformed.
    """
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        return None
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        text = decoded.decode("latin-1")  # what requests sends for str credentials
    user, colon, password = text.partition(":")
    return Credentials(user, password) if colon else None


class HostNames:
    """The names that requests may call the server by.

    Any other name may be that of a web page whose author made it resolve to this server (DNS
    rebinding): the browser then lets the page read the answers. BucketFS is not known to check it.

    Args:
        host: Name or address that the server listens on.
        certificate_name: Name in its certificate, which HTTPS requests may use; None without one.
        allowed: Further names, with or without port; ``*`` stands for any characters.
    """

    def __init__(self, host: str, certificate_name: str | None, allowed: Iterable[str]) -> None:
        self._certificate_name = certificate_name
        # a bracket is that of an IPv6 address, and not the start of a set of characters
        self._patterns = [name.lower().replace("[", "[[]") for name in (host, *allowed)]

    def check(self, host: str | None, local_address: str, scheme: str) -> None:
        """Refuse a request that uses another name.

        Args:
            host: Value of the ``Host`` header. None is accepted: HTTP/1.0 needs no such header,
                and browsers always send one.
            local_address: Address of this machine that the client is connected to.
            scheme: ``http`` or ``https``.

        Raises:
            IllegalNameError: The name is none of this server's.
        """
        if host is not None and not self._allow(host.lower(), local_address, scheme):
            raise IllegalNameError(
                f"{host!r} is no host name of this server: allow it by allowed_hosts=[…], "
                "or by --allowed-host of `mlflow-bucketfs-testing serve`"
            )

    def _allow(self, host: str, local_address: str, scheme: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        name = name.removesuffix(".")
        address, local = _ip_address(name), _ip_address(local_address)
        return (
            any(fnmatchcase(text, pattern) for text in (host, name) for pattern in self._patterns)
            or (address is not None and address == local)
            or (scheme == "https" and name == self._certificate_name)
            or (
                local is not None
                and local.is_loopback
                and (name == "localhost" or (address is not None and address.is_loopback))
            )
        )


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # what a listener for IPv4 and IPv6 calls an IPv4 address
    return getattr(address, "ipv4_mapped", None) or address
