"""Reading a bucket's listing in one pass: BucketFS has only the flat list of all keys.

``GET /<bucket>`` answers with every key of the bucket, one per line, in no particular order and
without folders (bucketfs-python ``_buckets.py``; bucketfs-java ``ListingRetriever``). Everything
else is derived here; only the matches and one block of the listing are held in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def keys_under(chunks: Iterable[bytes], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a streamed listing that equal ``prefix`` or are below it.

    ``foobar`` is not below ``foo``. Lines that are not UTF-8 keep their bytes as surrogates.

    Args:
        chunks: the body of the listing, in chunks of any size.
        prefix: a key without trailing ``/``; empty for all keys.
    """
    # Searching for the newline together with the prefix lets the interpreter's C code skip the
    # keys that do not match, which are nearly all of them in a large bucket.
    needle = b"\n" + prefix.encode("utf-8", "surrogateescape")
    for block in _complete_lines(chunks):
        if not prefix:
            for line in block.split(b"\n"):
                if key := _decode(line):
                    yield key
            continue
        start = block.find(needle)
        while start >= 0:
            end = block.find(b"\n", start + 1)
            key = _decode(block[start + 1 : end])
            if key == prefix or key.startswith(prefix + "/"):
                yield key
            start = block.find(needle, end)


def _complete_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a stream in blocks that start and end with a newline."""
    rest = b"\n"
    for chunk in chunks:
        block = rest + chunk
        end = block.rfind(b"\n")
        if end > 0:
            yield block[: end + 1]
            block = block[end:]
        rest = block
    yield rest + b"\n"


def _decode(line: bytes) -> str:
    # A carriage return cannot be part of a key that we wrote; whether BucketFS sends one is not
    # documented.
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


def children(keys: Iterable[str], folder: str = "") -> dict[str, bool]:
    """Return the direct children of a folder.

    A key may be a file and a folder at the same time ("ambiguous entry", bucketfs-client
    ``doc/design.md``); it counts as a folder here.

    Args:
        keys: keys of the bucket; those outside of the folder are ignored.
        folder: a key without trailing ``/``; empty for the root.

    Returns:
        The children's names in sorted order, each with whether it is a folder.
    """
    skip = len(folder) + 1 if folder else 0
    found: dict[str, bool] = {}
    for key in keys:
        if folder and not key.startswith(folder + "/"):
            continue
        name, slash, _ = key[skip:].partition("/")
        if name:
            found[name] = bool(slash) or found.get(name, False)
    return dict(sorted(found.items()))
