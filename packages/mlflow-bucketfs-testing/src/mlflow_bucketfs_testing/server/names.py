"""From the request target on the wire to a bucket and a key, and which keys are legal."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# A key becomes a path on the nodes' file system, where a name may have this many bytes.
MAX_SEGMENT_BYTES = 255
# A path has at most 4096 there; this leaves room for the folders above the bucket.
MAX_KEY_BYTES = 3072


class IllegalNameError(ValueError):
    """A bucket, key or host name that this server refuses (400 over HTTP)."""


class Target(NamedTuple):
    """What a request is about: ``("", "")`` all buckets, ``(bucket, "")`` its listing."""

    bucket: str
    key: str


def split_absolute_form(raw_path: bytes) -> tuple[str | None, bytes]:
    """Split ``http://host/path``, the form of a request to a proxy, into host and path.

    RFC 9112 (3.2.2) obliges every server to accept it.

    Returns:
        Host with port, and the path; None and the argument itself in any other form.
    """
    scheme, separator, rest = raw_path.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        return None, raw_path
    authority, _, path = rest.partition(b"/")
    return authority.decode("latin-1"), b"/" + path


def parse_target(raw_path: bytes, *, may_be_folder: bool = False) -> Target:
    """Split a request path, still percent-encoded, into bucket and key.

    Each is decoded once, as UTF-8; ``+`` is a plus. The split comes first, so ``%2F`` is a
    slash inside the key (``a%2Fb`` is ``a/b``) and never ends the name of the bucket.

    Args:
        raw_path: The path, without the query and without a host, see `split_absolute_form`.
        may_be_folder: Whether the key may end with a slash. No object has such a name, so that a
            PUT or DELETE of it would succeed and do nothing.

    Raises:
        IllegalNameError: The path does not begin with one slash, or the name is not UTF-8 or is
            illegal, see `check_key`.
    """
    if not raw_path.startswith(b"/"):
        raise IllegalNameError("the path does not begin with a slash")
    raw_bucket, _, raw_key = raw_path[1:].partition(b"/")
    if not raw_bucket and raw_path != b"/":
        # Unknown of BucketFS. As the path of all buckets it would be a success that stores nothing.
        raise IllegalNameError("the bucket's name is empty: the path begins with two slashes")
    try:
        bucket = unquote_to_bytes(raw_bucket).decode()
        key = unquote_to_bytes(raw_key).decode()
    except UnicodeDecodeError as exc:
        raise IllegalNameError("the name is not UTF-8") from exc
    if key:
        check_key(key.removesuffix("/") if may_be_folder else key)
    return Target(bucket, key)


def check_key(key: str) -> None:
    """Accept what can be a path below the bucket's folder on a Linux node.

    Args:
        key: Full key, ``/``-separated, decoded.

    Raises:
        IllegalNameError: A segment is empty, ``.``, ``..`` or longer than 255 bytes, or the key
            is longer than 3072 bytes or has a control character (a newline would break every
            client's listing).
    """
    if len(key.encode()) > MAX_KEY_BYTES:
        raise IllegalNameError(f"a key has at most {MAX_KEY_BYTES} bytes")
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise IllegalNameError("control character in the name")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise IllegalNameError(f"{segment!r} is no name")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise IllegalNameError(f"a name has at most {MAX_SEGMENT_BYTES} bytes")
