"""Keys: the names of objects in a bucket, as text, on the wire and on the mount."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from mlflow_bucketfs_core.errors import InvalidKeyError

# What BucketFS unpacks for UDFs, and no other: Exasol's documentation ("Database Access in
# BucketFS") names these four, as does bucketfs-java. A lone ".gz" is none of them.
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


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
    segments = tuple(segment for segment in path.split("/") if segment)
    for segment in segments:
        if segment in {".", ".."}:
            raise InvalidKeyError(
                f"The path {path!r} contains the segment {segment!r}, which could lead out of its "
                "folder. Use a path without '.' and '..'."
            )
        # str.isprintable is far cheaper than asking for the category of every character
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
    """Return the key that a path names; see :func:`split_key` for what is refused."""
    return "/".join(split_key(path))


def join_key(folder: str, name: str) -> str:
    """Join two keys, either of which may be empty (the root)."""
    return f"{folder}/{name}" if folder and name else folder or name


def parent_folders(key: str) -> list[str]:
    """Return the folders above a key, outermost first: ``a/b/c`` gives ``a`` and ``a/b``."""
    return [key[:index] for index, character in enumerate(key) if character == "/"]


def quote_key(key: str) -> str:
    """Encode a key for a URL, each segment with ``safe=""``.

    So ``#``, ``?``, ``%`` and ``+`` in names reach the server as they are; exasol-bucketfs 2.3.1
    quotes nothing and stores ``a#b`` as ``a``.
    """
    return "/".join(quote(segment, safe="", errors="surrogateescape") for segment in key.split("/"))


def strip_archive_suffix(key: str) -> str:
    """Return the name under which UDFs see a key: archives appear unpacked, without suffix.

    One suffix of :data:`ARCHIVE_SUFFIXES` is removed from the last segment; a name that consists
    of a suffix alone keeps it.
    """
    folder, separator, name = key.rpartition("/")
    for suffix in ARCHIVE_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return folder + separator + name[: -len(suffix)]
    return key
