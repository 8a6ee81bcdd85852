"""The errors of this package. Each also derives from the matching built-in exception.

.. code-block:: text

    BucketFSError
    ├── InvalidUriError            ValueError          a URI that cannot name a location in BucketFS
    ├── InvalidKeyError            ValueError          a path that cannot be a key
    ├── ConfigurationError         ValueError          an environment variable with a bad value
    ├── HostNotAllowedError        PermissionError     a host outside EXA_BUCKETFS_ALLOWED_HOSTS
    ├── MissingCredentialsError    PermissionError     a write without a password
    ├── AuthenticationError        PermissionError     401
    ├── AccessDeniedError          PermissionError     403
    ├── ObjectNotFoundError        FileNotFoundError   404 of an object
    ├── BucketNotFoundError        FileNotFoundError   404 of a bucket
    ├── PathBlockedError           NotADirectoryError  the file ``d`` in the way of ``d/x``
    ├── UnsafeEntryError           OSError             a link that leads out of a mounted bucket
    └── TransferError              OSError
        ├── TransferTimeoutError   TimeoutError        the server stopped answering
        ├── ServerUnavailableError ConnectionError     refused, reset, unknown host, 5xx
        ├── TlsError               ConnectionError     certificate or handshake
        ├── LockedError                                423, shortly after a deletion
        ├── RateLimitedError                           429
        ├── IncompleteTransferError                    fewer bytes than announced
        └── UnexpectedResponseError                    any other response, redirects among them

A message has the operation, the location, the likely cause and the remedy, and never a password.
Control characters in it are escaped, because a terminal would act on them.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape a text so that it is safe to print on a terminal.

    Control characters, characters without a glyph and bytes that are not UTF-8 are written as in
    Python's string literals: ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class BucketFSError(Exception):
    """The base class of this package's errors.

    Attributes:
        reason: the cause, without operation and location: the same text for all files that fail
            for this cause; ``None`` if the message has no such part.
    """

    reason: str | None = None

    def __str__(self) -> str:
        """Return the message, escaped by :func:`printable`."""
        return printable(super().__str__())


class InvalidUriError(BucketFSError, ValueError):
    """A URI that cannot name a location in BucketFS."""


class InvalidKeyError(BucketFSError, ValueError):
    """A path that cannot be the key of an object."""


class ConfigurationError(BucketFSError, ValueError):
    """An environment variable holds a value that cannot be used.

    Attributes:
        variable: its name; ``None`` if it may be one of several, such as those for proxies.
    """

    variable: str | None = None


class HostNotAllowedError(BucketFSError, PermissionError):
    """The URI's host may not receive the password of this process."""


class MissingCredentialsError(BucketFSError, PermissionError):
    """The operation needs a password and none is set."""


class AuthenticationError(BucketFSError, PermissionError):
    """BucketFS asks for credentials (401)."""


class AccessDeniedError(BucketFSError, PermissionError):
    """BucketFS rejected the credentials (403)."""


class ObjectNotFoundError(BucketFSError, FileNotFoundError):
    """No object has this key."""


class BucketNotFoundError(BucketFSError, FileNotFoundError):
    """The service has no bucket of this name."""


class PathBlockedError(BucketFSError, NotADirectoryError):
    """One of the key's folders exists as a file; BucketFS would lose the upload silently."""


class UnsafeEntryError(BucketFSError, OSError):
    """An entry of a mounted bucket is a link out of the bucket, or not a regular file."""


class TransferError(BucketFSError, OSError):
    """A request or the transfer of its body failed."""


class TransferTimeoutError(TransferError, TimeoutError):
    """BucketFS did not answer, or stopped sending, for too long."""


class ServerUnavailableError(TransferError, ConnectionError):
    """No connection, a lost connection, or a status 5xx."""


class TlsError(TransferError, ConnectionError):
    """The TLS handshake failed or the certificate was refused."""


class LockedError(TransferError):
    """The path is locked (423): BucketFS does so for 10 to 30 seconds after a deletion."""


class RateLimitedError(TransferError):
    """BucketFS, or a proxy before it, refused a request because there were too many (429)."""


class IncompleteTransferError(TransferError):
    """The number of bytes moved differs from the number announced."""


class UnexpectedResponseError(TransferError):
    """A response that BucketFS does not send: a redirect, a proxy's page, another service."""
