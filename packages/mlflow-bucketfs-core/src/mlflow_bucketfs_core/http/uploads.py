"""Uploads into one bucket, each after a look for files in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_core.folder_guard import folder_guard
from mlflow_bucketfs_core.listing import keys_under

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_bucketfs_core.http.channel import Channel
    from mlflow_bucketfs_core.uri import BucketFSUri


class Uploads:
    """Uploads that BucketFS cannot lose.

    Args:
        channel: to the bucket.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def prepare(self, keys: Iterable[str]) -> set[str]:
        """See :meth:`Bucket.prepare_uploads <mlflow_bucketfs_core.Bucket.prepare_uploads>`."""
        places = {key: self._channel.write_operation("upload", key).uri.path for key in keys}
        bucket = self._channel.uri
        there = folder_guard(bucket).check_anew(bucket, places.values(), self._files_among)
        return {key for key, place in places.items() if place in there}

    def check(self, key: str) -> None:
        """Raise if an upload with this key cannot work, as far as this process knows.

        Raises:
            BucketFSError: see :meth:`prepare`.
        """
        self._check(self._channel.write_operation("upload", key).uri)

    def send(
        self, key: str, body: Callable[[], tuple[Any, int | None]], *, repeatable: bool = True
    ) -> None:
        """Upload one object.

        Args:
            key: the object to be.
            body: returns what is sent in one try and its size, ``None`` if that is not known.
            repeatable: whether there can be a second try.

        Raises:
            BucketFSError: see :meth:`Bucket.upload_file <mlflow_bucketfs_core.Bucket.upload_file>`.
        """
        operation = self._channel.write_operation("upload", key)
        self._check(operation.uri)
        guard = folder_guard(self._channel.uri)
        guard.forget(operation.uri.path)
        try:
            self._channel.retry(
                lambda: self._channel.put(operation, *body()),
                repeatable=repeatable,
            )
        finally:
            # again: a listing of another thread may have shown a folder of this name meanwhile
            guard.forget(operation.uri.path)

    def _check(self, place: BucketFSUri) -> None:
        bucket = self._channel.uri
        folder_guard(bucket).check_known(bucket, place.path, self._files_among)

    def _files_among(self, names: set[str]) -> set[str]:
        return self._channel.scan(lambda chunks: names.intersection(keys_under(chunks)))
