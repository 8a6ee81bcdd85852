"""A bucket as a path of exasol-bucketfs, so that Exasol's tools can use our transport.

Import this module only when it is used: importing exasol-bucketfs takes half a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import exasol.bucketfs as bfs

from mlflow_bucketfs_core.mounted import bucket_udf_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from mlflow_bucketfs_core.bucket import Bucket


def bucket_path(bucket: Bucket, key: str) -> bfs.path.BucketPath:
    """Return ``key`` as a path of exasol-bucketfs; see :meth:`Bucket.as_path`."""
    return bfs.path.BucketPath(key, BucketView(bucket))


@dataclass(frozen=True)
class BucketView:
    """An adapter of a :class:`Bucket` to the protocol ``exasol.bucketfs.BucketLike``.

    It raises this package's errors, which also derive from built-in ones.

    Attributes:
        bucket: the adapted bucket.
    """

    bucket: Bucket

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self.bucket.uri.bucket

    @property
    def udf_path(self) -> str:
        """Directory under which UDFs see the bucket."""
        return bucket_udf_path(self.bucket.uri)

    @property
    def files(self) -> Iterable[str]:
        """All keys of the bucket."""
        return self.bucket.keys()

    def delete(self, path: str) -> None:
        """Delete an object; a missing object is not an error."""
        self.bucket.delete(path)

    def upload(self, path: str, data: bytes | bytearray | memoryview | BinaryIO) -> None:
        """Upload bytes, or a binary file from its current position."""
        if isinstance(data, (bytes, bytearray, memoryview)):
            self.bucket.upload_bytes(path, bytes(data))
        else:
            self.bucket.upload_fileobj(path, data)

    def download(self, path: str, chunk_size: int = 8192) -> Iterator[bytes]:
        """Yield an object's content in pieces of at most ``chunk_size`` bytes."""
        for block in self.bucket.iter_content(path):
            for start in range(0, len(block), chunk_size):
                yield block[start : start + chunk_size]
