"""URIs, ``exa+bfs://host[:port]/service/bucket[/path]``, and keys, the paths within a bucket."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import quote

from mlflow_bucketfs_core.errors import InvalidKeyError, InvalidUriError

# 2580 has been BucketFS's port for HTTP since Exasol 7.0; 2581 for HTTPS, the only one that is
# open by default since 8.29 (docs.exasol.com, "BucketFS"; exasol-testcontainers #258).
_HTTP_PORT, _HTTPS_PORT = 2580, 2581

# Exasol's names for the first service and its bucket, which every cluster has
USUAL_SERVICE, USUAL_BUCKET = "bfsdefault", "default"

# The spellings without "+" exist because MLflow's REST validation of model sources turns a "+"
# into a space and then finds no scheme.
_TLS_BY_SCHEME = MappingProxyType(
    {"exa+bfs": False, "exa+bfss": True, "exabfs": False, "exabfss": True}
)
SCHEMES = frozenset(_TLS_BY_SCHEME)

_EXPECTED = "Expected exa+bfs://host[:port]/service/bucket[/path], or exa+bfss:// for HTTPS."
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?")
_PORT = re.compile("0{0,4}[1-9][0-9]{0,4}")
_MAX_PORT = 65535
_SUFFIX = re.compile("[?#]")

# Files that BucketFS unpacks for UDFs, by Exasol's documentation ("Database Access in BucketFS")
# and bucketfs-java. A file that ends in ".gz" alone is not unpacked.
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class BucketFSUri:
    """A location in BucketFS: a service, a bucket, a folder or an object.

    The path is literal: MLflow appends names without encoding them, so ``%41`` in it means these
    three characters. ``str()`` of a parsed URI parses to an equal value. A URI made by
    :meth:`joinpath` may have a ``#`` or ``?`` in its path, which :meth:`parse` refuses.

    Attributes:
        scheme: ``exa+bfs``, ``exa+bfss``, ``exabfs`` or ``exabfss``, in lower case.
        host: name or address in lower case, IPv6 without brackets.
        port: the port; the scheme's default if the URI has none.
        service: name of the BucketFS service, empty if the URI ends before it.
        bucket: name of the bucket, empty if the URI ends before it.
        path: key or folder within the bucket, without leading or trailing ``/``.
    """

    scheme: str
    host: str
    port: int
    service: str = ""
    bucket: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> BucketFSUri:
        """Parse a URI.

        A URI may end before the bucket, because MLflow splits off the last segment and passes it
        as a path. :meth:`require_bucket` checks for a bucket where one is needed.

        Args:
            text: the URI, not percent-encoded.

        Raises:
            InvalidUriError: another scheme, a user or password, a query or fragment, a bad host
                or port, ``.`` or ``..`` or control characters. The message never contains text
                that may be a password.
        """
        scheme, separator, rest = text.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in _TLS_BY_SCHEME:
            raise InvalidUriError(f"{redacted(text)!r} is not a BucketFS URI. {_EXPECTED}")
        authority, _, path = rest.partition("/")
        _refuse_secrets_and_suffixes(text, authority, path)
        host, port = _split_authority(text, authority)
        root = cls(scheme, host, port or default_port(tls=_TLS_BY_SCHEME[scheme]))
        try:
            uri = root.joinpath(path)
        except InvalidKeyError as error:
            # the error contains the path, which may be the second half of a password with a "/"
            reason = error if redacted(text) == text else "Its path is not valid in BucketFS."
            raise InvalidUriError(f"{redacted(text)!r} is not a BucketFS URI. {reason}") from None
        if "@" in uri.service or "@" in uri.bucket:  # "w:1/2@host": a password with a "/" in it
            raise InvalidUriError(_user_message(text))
        return uri

    def __str__(self) -> str:
        """Format the URI, always with its port."""
        tail = "/".join(part for part in (self.service, self.bucket, self.path) if part)
        return f"{self.scheme}://{self.authority}/{tail}"

    @property
    def tls(self) -> bool:
        """Whether the scheme stands for HTTPS."""
        return _TLS_BY_SCHEME[self.scheme]

    @property
    def authority(self) -> str:
        """``host:port``, IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Root URL of the BucketFS service; the service's name is not part of it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def joinpath(self, path: str) -> BucketFSUri:
        """Return the location of ``path`` below this one.

        If this URI ends before service or bucket, the first segments of ``path`` supply them.

        Args:
            path: segments separated by ``/``, taken literally; empty for this location.

        Raises:
            InvalidKeyError: a segment of ``path`` is ``.`` or ``..``, holds a control character,
                or cannot be written as UTF-8.
        """
        own = [part for part in (self.service, self.bucket) if part]
        own += self.path.split("/") if self.path else []
        service, bucket, *rest = (*own, *split_key(path), "", "")
        return replace(self, service=service, bucket=bucket, path="/".join(filter(None, rest)))

    def require_bucket(self) -> BucketFSUri:
        """Return this URI if it names service and bucket.

        Raises:
            InvalidUriError: it has no bucket.
        """
        if self.bucket:
            return self
        missing = "bucket" if self.service else "service and bucket"
        raise InvalidUriError(
            f"The URI '{self}' names no {missing}. {_EXPECTED} "
            f"On most systems service and bucket are {USUAL_SERVICE}/{USUAL_BUCKET}."
        )


def default_port(*, tls: bool) -> int:
    """Return the port that BucketFS listens on by default."""
    return _HTTPS_PORT if tls else _HTTP_PORT


def is_bucketfs_uri(text: str) -> bool:
    """Return whether a text starts with a scheme of BucketFS; the rest may be malformed."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme.lower() in _TLS_BY_SCHEME


def is_host_name(text: str) -> bool:
    """Return whether a text can be the name of a host, or an IPv4 address."""
    return _HOST_NAME.fullmatch(text) is not None


def redacted(text: str) -> str:
    """Replace the parts of a possible URI that may contain a password by ``***``.

    These are the text before an ``@``, which may itself be part of a password, and the text after
    ``?`` or ``#``.
    """
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in _TLS_BY_SCHEME:
        scheme, separator, rest = "", "", text
    before, at, after = rest.rpartition("@")
    if _SUFFIX.search(before):  # either "w:p?x@host" or "host?password=x@y"
        return f"{scheme}{separator}***"
    shown, *suffix = _SUFFIX.split(after, maxsplit=1)
    return f"{scheme}{separator}{'***@' * bool(at)}{shown}{'?***' * len(suffix)}"


def _user_message(text: str) -> str:
    return (
        f"The URI '{redacted(text)}' contains a user or password, and MLflow stores locations in "
        "its database and in model files. Set EXA_BUCKETFS_USER and EXA_BUCKETFS_PASSWORD instead "
        "and remove everything up to the '@'. If an experiment has this location already, create "
        "another experiment, delete the old one permanently, and change the password."
    )


def _refuse_secrets_and_suffixes(text: str, authority: str, path: str) -> None:
    if "@" in authority:
        raise InvalidUriError(_user_message(text))
    for mark, name in (("?", "query"), ("#", "fragment")):
        if mark in authority or mark in path:
            raise InvalidUriError(
                f"The URI '{redacted(text)}' contains a {name} ('{mark}'), which BucketFS URIs do "
                f"not have. To get a file with '{mark}' in its name, download the folder that "
                "it is in."
            )


def _split_authority(text: str, authority: str) -> tuple[str, int | None]:
    host, port_text = authority, None
    if authority.startswith("["):
        host, bracket, tail = authority[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise InvalidUriError(_ipv6_message(text))
        port_text = tail[1:] if tail else None
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise InvalidUriError(_ipv6_message(text)) from None
        if "%" in host:
            raise InvalidUriError(f"{_ipv6_message(text)} Zones ('%…') are not supported.")
    else:
        host, colon, tail = authority.partition(":")
        port_text = tail if colon else None
        # Strict, because clients and parsers disagree about backslashes, spaces and the like:
        # the host that a policy approves must be the host that is connected to.
        if not is_host_name(host):
            raise InvalidUriError(
                f"The URI {redacted(text)!r} has no valid host. {_EXPECTED} "
                "Put IPv6 addresses in brackets; write international names in punycode."
            )
    return host.lower(), _parse_port(text, port_text)


def _ipv6_message(text: str) -> str:
    return f"The host in {redacted(text)!r} is not a valid IPv6 address. {_EXPECTED}"


def _parse_port(text: str, port_text: str | None) -> int | None:
    if port_text is None:
        return None
    # int() alone accepts "+1", " 1", "1_0" and the digits of other scripts
    if _PORT.fullmatch(port_text) and int(port_text) <= _MAX_PORT:
        return int(port_text)
    raise InvalidUriError(f"The port in {redacted(text)!r} is not a number from 1 to {_MAX_PORT}.")


def split_key(path: str) -> tuple[str, ...]:
    """Split a path into the segments of a key.

    Empty segments are dropped: old experiments have ``//`` in their locations, and BucketFS
    documents no meaning for them. Everything else is taken literally, nothing is decoded.

    Args:
        path: segments separated by ``/``.

    Returns:
        The segments, from the bucket's root down; empty for the root itself.

    Raises:
        InvalidKeyError: a segment is ``.`` or ``..``, or holds a control character (the listing
            of a bucket is separated by newlines), or cannot be written as UTF-8.
    """
    segments = tuple(filter(None, path.split("/")))
    for segment in segments:
        if segment in {".", ".."}:
            raise InvalidKeyError(
                f"The path {path!r} contains the segment {segment!r}, which could lead out of its "
                "folder. Use a path without '.' and '..'."
            )
        # str.isprintable is much faster than looking up the category of every character
        if not segment.isprintable():
            _refuse_unusable_characters(path, segment)
    return segments


def _refuse_unusable_characters(path: str, segment: str) -> None:
    for character in segment:
        category = unicodedata.category(character)
        if category == "Cc":
            raise InvalidKeyError(
                f"The path {path!r} contains the control character U+{ord(character):04X}, with "
                "which it could not be found in a bucket's listing. Rename the file."
            )
        if category == "Cs":
            raise InvalidKeyError(f"The path {path!r} cannot be written as UTF-8. Rename the file.")


def normalize_key(path: str) -> str:
    """Return the key of a path; raise for the paths that :func:`split_key` refuses."""
    return "/".join(split_key(path))


def join_key(folder: str, name: str) -> str:
    """Join two keys, either of which may be empty (the root)."""
    return f"{folder}/{name}" if folder and name else folder or name


def parent_folders(key: str) -> list[str]:
    """Return the folders above a key, outermost first: ``a/b/c`` gives ``a`` and ``a/b``."""
    return [key[:index] for index, character in enumerate(key) if character == "/"]


def quote_key(key: str) -> str:
    """Percent-encode a key for a URL, except the ``/`` between its segments.

    So ``#``, ``?``, ``%`` and ``+`` in names reach the server unchanged; exasol-bucketfs 2.3.1
    does not encode names and stores ``a#b`` as ``a``.
    """
    return quote(key, safe="/", errors="surrogateescape")


def strip_archive_suffix(key: str) -> str:
    """Return the path under which UDFs see a key: archives are unpacked, and have no suffix.

    One suffix of :data:`ARCHIVE_SUFFIXES` is removed from the last segment; a name that consists
    of a suffix alone keeps it.
    """
    folder, separator, name = key.rpartition("/")
    for suffix in ARCHIVE_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return folder + separator + name[: -len(suffix)]
    return key
