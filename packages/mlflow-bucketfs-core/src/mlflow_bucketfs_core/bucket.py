"""One bucket over HTTP."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import BucketNotFoundError, ObjectNotFoundError
from mlflow_bucketfs_core.files import atomic_file
from mlflow_bucketfs_core.hosts import check_host_allowed
from mlflow_bucketfs_core.http.bodies import chunked_body, file_body, first_bytes
from mlflow_bucketfs_core.http.channel import Channel
from mlflow_bucketfs_core.http.failures import TransientFailure
from mlflow_bucketfs_core.http.request import read_body
from mlflow_bucketfs_core.http.uploads import Uploads
from mlflow_bucketfs_core.listing import keys_under
from mlflow_bucketfs_core.settings import ConnectionSettings
from mlflow_bucketfs_core.uri import BucketFSUri, normalize_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from exasol.bucketfs._path import BucketPath

# A stream cannot be sent twice; up to this size it is held in memory, so that it can.
STREAM_BUFFER_BYTES = 8 << 20


class Bucket:
    """The objects of one bucket, by key.

    Cheap to make: nothing is sent before the first operation, and all instances of a process
    share one pool of connections per server and credentials. Safe to use from many threads and
    after a fork.

    Every operation is tried again after lost connections, 408, 423, 429 and 5xx, with
    exponential back-off, for at most 60 s of waiting beside the transfer's own time; where
    nothing listens, or the host is unknown, three times.

    Args:
        uri: names service and bucket; a path in it is ignored.
        settings: credentials and the like; from the environment if ``None``.

    Raises:
        InvalidUriError: the URI names no bucket.
        ConfigurationError: an environment variable has a bad value.
        HostNotAllowedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` is set and lacks the URI's host.
    """

    def __init__(self, uri: BucketFSUri | str, settings: ConnectionSettings | None = None) -> None:
        parsed = BucketFSUri.parse(uri) if isinstance(uri, str) else uri
        parsed.require_bucket()
        root = BucketFSUri(parsed.scheme, parsed.host, parsed.port, parsed.service, parsed.bucket)
        settings = ConnectionSettings.from_env() if settings is None else settings
        check_host_allowed(settings.allowed_hosts, root)
        self._channel = Channel(root, settings)
        self._uploads = Uploads(self._channel)

    def __repr__(self) -> str:
        """Show the URI; there are no secrets in it."""
        return f"{type(self).__name__}({str(self.uri)!r})"

    def __eq__(self, other: object) -> bool:
        """Compare what is reached and how: paths of equal buckets are relative to each other."""
        if not isinstance(other, Bucket):
            return NotImplemented
        return (self.uri, self.settings) == (other.uri, other.settings)

    def __hash__(self) -> int:
        return hash((self.uri, self.settings))

    @property
    def uri(self) -> BucketFSUri:
        """The bucket's root."""
        return self._channel.uri

    @property
    def settings(self) -> ConnectionSettings:
        """The settings that this bucket uses."""
        return self._channel.settings

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys under a folder, or equal to it: one request.

        The server sends the whole bucket's listing; memory holds the matches only.

        Args:
            prefix: folder or key; empty for the whole bucket. ``foo`` does not match ``foobar``.

        Returns:
            The keys, in the server's order, which is not defined.

        Raises:
            BucketNotFoundError: no such bucket.
            BucketFSError: see the class.
        """
        key = normalize_key(prefix)
        return self._channel.scan(lambda chunks: list(keys_under(chunks, key)))

    def exists(self, key: str) -> bool:
        """Tell whether an object has exactly this key; folders do not exist as such.

        One GET whose body is not read; an object of more than 64 KiB costs the connection.

        Raises:
            BucketFSError: see the class.
        """
        operation = self._channel.operation("download", key)

        def attempt() -> bool:
            with suppress(ObjectNotFoundError), self._channel.get(operation):
                return True
            return False

        return self._channel.retry(attempt)

    def download_file(self, key: str, local_path: str | os.PathLike[str]) -> None:
        """Download an object into a file, which appears complete or not at all.

        Its length is verified where the server announces it; an existing file is replaced only
        by a complete download.

        Args:
            key: the object.
            local_path: the file, in a directory that exists.

        Raises:
            ObjectNotFoundError: no object has this key.
            IncompleteTransferError: the connection kept ending early.
            BucketFSError: see the class.
            OSError: the file cannot be written.
        """
        operation = self._channel.operation("download", key)
        target = Path(local_path)

        def attempt() -> None:
            with self._channel.get(operation) as response, atomic_file(target) as file:
                for block in read_body(response, operation):
                    file.write(block)

        self._channel.retry(attempt)

    def iter_content(self, key: str) -> Iterator[bytes]:
        """Yield an object's content in blocks, as it arrives.

        Only the beginning is tried again: a stream that breaks off raises.

        Raises:
            ObjectNotFoundError: no object has this key.
            BucketFSError: see the class.
        """
        operation = self._channel.operation("download", key)
        try:
            with ExitStack() as stack:
                response = self._channel.retry(
                    lambda: stack.enter_context(self._channel.get(operation, streams=True))
                )
                yield from read_body(response, operation)
        except TransientFailure as failure:
            raise failure.error from failure.__cause__

    def upload_file(self, key: str, local_path: str | os.PathLike[str]) -> None:
        """Upload a file, streamed, replacing an object of the same key.

        Returns once all nodes of the cluster have the bytes, which takes BucketFS about a second
        at least. Asks for a listing if it is not known yet whether a file stands in the way.

        Args:
            key: the object to be.
            local_path: what to upload; memory does not grow with its size.

        Raises:
            MissingCredentialsError: no password is set.
            PathBlockedError: a file has the name of one of the key's folders.
            InvalidKeyError: the key cannot be one.
            BucketFSError: see the class.
            OSError: the file cannot be read.
        """
        path = Path(local_path)
        if path.exists() and not path.is_file():
            # opening a named pipe would wait for ever
            raise OSError(f"{path} is not a regular file and cannot be uploaded.")
        with path.open("rb") as file:
            self._upload_seekable(key, file, os.fspath(local_path))

    def upload_fileobj(self, key: str, file: BinaryIO) -> None:
        """Upload an open binary file from its current position; see :meth:`upload_file`."""
        if file.seekable():
            self._upload_seekable(key, file, repr(key))
        else:
            self.upload_stream(key, iter(lambda: file.read(1 << 20), b""))

    def upload_bytes(self, key: str, data: bytes) -> None:
        """Upload bytes; see :meth:`upload_file`."""
        self._uploads.send(key, lambda: (data, len(data)))

    def upload_stream(self, key: str, chunks: Iterable[bytes]) -> None:
        """Upload a stream of unknown length.

        Up to 8 MiB are held in memory and tried again like a file. What is longer is sent in
        chunks while it arrives and cannot be tried again. If the source raises, the upload is
        broken off and nothing is stored.

        Args:
            key: the object to be.
            chunks: the content, cut anywhere.

        Raises:
            BucketFSError: see :meth:`upload_file`.
        """
        # before the stream is touched: a caller may still use it if this fails
        self._uploads.check(key)
        source = iter(chunks)
        data, complete = first_bytes(source, STREAM_BUFFER_BYTES)
        if complete:
            self.upload_bytes(key, data)
        else:
            body = chunked_body(data, source, repr(key))
            self._uploads.send(key, lambda: (body, None), repeatable=False)

    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error, as in BucketFS itself.

        Args:
            key: the object. BucketFS locks it for 10 to 30 seconds after that.

        Raises:
            MissingCredentialsError: no password is set.
            BucketNotFoundError: no such bucket.
            BucketFSError: see the class.
        """
        operation = self._channel.write_operation("delete", key)
        try:
            self._channel.retry(lambda: self._channel.delete(operation))
        except BucketNotFoundError:
            # BucketFS answers 200 for a missing object (bucketfs-client ``DeleteCommandIT``), so
            # 404 is about the bucket. Ask, because no test of Exasol's shows that for a deletion.
            if self._channel.exists():
                return
            raise

    def require_password(self) -> None:
        """Return if there is a password to write with.

        Raises:
            MissingCredentialsError: there is none.
        """
        self._channel.require_password("write")

    def prepare_uploads(self, keys: Iterable[str]) -> set[str]:
        """Check that uploads with these keys can work, and which of the keys exist: one request.

        Every upload looks for files in the way of its own key, but takes what a listing of the
        last 60 s has shown. Call this before many uploads, which then need no listing of their
        own, or to know what will be replaced.

        Args:
            keys: the objects to be; without any, there is no request.

        Returns:
            Those of the keys that are objects already.

        Raises:
            MissingCredentialsError: no password is set.
            InvalidKeyError: a key cannot be one.
            PathBlockedError: a file has the name of one of the keys' folders.
            BucketFSError: the bucket cannot be listed.
        """
        return self._uploads.prepare(keys)

    def as_path(self, key: str = "") -> BucketPath:
        """Return a path object of exasol-bucketfs that works on this transport.

        So whatever takes an ``exasol.bucketfs.path.BucketPath`` gains the pooled connections,
        quoting, retries and timeouts of this class.

        Args:
            key: object or folder; empty for the bucket's root.
        """
        from mlflow_bucketfs_core.exasol_path import bucket_path  # noqa: PLC0415 -- costs 0.5 s

        return bucket_path(self, key)

    def _upload_seekable(self, key: str, file: BinaryIO, name: str) -> None:
        start = file.tell()
        self._uploads.send(key, lambda: file_body(file, start, name))
