"""Who may do what: buckets, their two users, and HTTP Basic."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import NamedTuple

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
        """Refuse a name that cannot be one path segment.

        Raises:
            ValueError: The name is empty, ``.`` or ``..``, or contains a slash.
        """
        if self.name in {"", ".", ".."} or "/" in self.name:
            raise ValueError(f"not a bucket name: {self.name!r}")

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
