"""The objects of one bucket: every operation on them, over HTTP."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_bucketfs_core.errors import (
    BucketNotFoundError,
    InvalidKeyError,
    MissingCredentialsError,
    ObjectNotFoundError,
    UnexpectedResponseError,
)
from mlflow_bucketfs_core.files import atomic_file
from mlflow_bucketfs_core.folder_guard import folder_guard
from mlflow_bucketfs_core.hosts import check_host_allowed
from mlflow_bucketfs_core.http.failures import TransientFailure
from mlflow_bucketfs_core.http.request import (
    Request,
    chunked_body,
    file_body,
    first_bytes,
    read_body,
    read_listing,
    send,
)
from mlflow_bucketfs_core.http.retry import RetryLoop
from mlflow_bucketfs_core.listing import keys_under
from mlflow_bucketfs_core.settings import ConnectionSettings
from mlflow_bucketfs_core.uri import BucketFSUri, normalize_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from exasol.bucketfs._path import BucketPath
    from urllib3.response import BaseHTTPResponse

    from mlflow_bucketfs_core.folder_guard import FolderGuard

_Result = TypeVar("_Result")

# A stream cannot be sent twice; up to this size it is held in memory, so that it can.
STREAM_BUFFER_BYTES = 8 << 20


class Bucket:
    """The objects of one bucket, by key.

    Cheap to make: nothing is sent before the first operation, and all instances of a process
    share one pool of connections per server and credentials. Safe to use from many threads and
    after a fork.

    Every operation is retried after lost connections, 408, 423, 429 and 5xx, with
    exponential back-off, for at most 60 s of waiting beside the transfer's own time; where
    nothing listens, or the host is unknown, three times, unless it answered in the last 60 s.

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
        self._uri = replace(parsed.require_bucket(), path="")
        self._settings = ConnectionSettings.from_env() if settings is None else settings
        check_host_allowed(self._settings.allowed_hosts, self._uri)

    def __repr__(self) -> str:
        """Show the URI; there are no secrets in it."""
        return f"{type(self).__name__}({str(self._uri)!r})"

    def __eq__(self, other: object) -> bool:
        """Compare URI and settings: paths of equal buckets are relative to each other."""
        if not isinstance(other, Bucket):
            return NotImplemented
        return (self._uri, self._settings) == (other._uri, other._settings)

    def __hash__(self) -> int:
        return hash((self._uri, self._settings))

    @property
    def uri(self) -> BucketFSUri:
        """The bucket's root."""
        return self._uri

    @property
    def settings(self) -> ConnectionSettings:
        """The settings that this bucket uses."""
        return self._settings

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys under a folder, or equal to it: one request.

        The server sends the whole bucket's listing; memory holds the matches only.

        Args:
            prefix: folder or key; empty for the whole bucket. ``foo`` does not match ``foobar``.

        Returns:
            The keys, in the server's order, which is not defined.

        Raises:
            BucketNotFoundError: no such bucket.
            UnexpectedResponseError: the listing is longer than 1 GiB, or 10,000,000 keys.
            BucketFSError: see the class.
        """
        key = normalize_key(prefix)
        return _list(self._list_request(), self._settings, list, key)

    def exists(self, key: str) -> bool:
        """Return whether an object has exactly this key; folders do not exist as such.

        One GET whose body is not read; an object of more than 64 KiB costs the connection.

        Raises:
            BucketFSError: see the class.
        """
        uri = self._uri_of("look up", key)
        return self._is_found(Request("GET", uri, "look up", ObjectNotFoundError))

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
            OSError: the file cannot be written; names it.
        """
        target = Path(local_path)
        request = self._download_request(key)

        def write(response: BaseHTTPResponse) -> None:
            with atomic_file(target) as file:
                file.writelines(read_body(response, request))

        _receive(request, self._settings, write)

    def iter_content(self, key: str) -> Iterator[bytes]:
        """Yield an object's content in blocks, as it arrives.

        Only the beginning is retried: a truncated stream raises.

        Raises:
            ObjectNotFoundError: no object has this key.
            BucketFSError: see the class.
        """
        request = self._download_request(key)
        try:
            with ExitStack() as stack:
                response = self._retry_loop().run(
                    lambda: stack.enter_context(send(request, self._settings, streams=True))
                )
                yield from read_body(response, request)
        except TransientFailure as failure:
            raise failure.error from failure.__cause__

    def upload_file(self, key: str, local_path: str | os.PathLike[str]) -> None:
        """Upload a file, streamed, replacing an object of the same key.

        Returns once all nodes of the cluster have the bytes, which takes BucketFS about a second
        at least. Asks for a listing if it is not known yet whether a file stands in the way.

        Args:
            key: the object to be.
            local_path: the file to upload; memory does not grow with its size.

        Raises:
            MissingCredentialsError: no password is set.
            PathBlockedError: a file has the name of one of the key's folders.
            InvalidKeyError: the key cannot be one.
            BucketFSError: see the class.
            OSError: the file cannot be read; names it.
        """
        path = Path(local_path)
        if path.exists() and not path.is_file():
            # opening a named pipe would block forever
            raise OSError(f"{path} is not a regular file and cannot be uploaded.")
        with path.open("rb") as file:
            uri = self._uri_to_write("upload", key)
            self._upload(uri, lambda: file_body(file, 0, os.fspath(local_path)))

    def upload_fileobj(self, key: str, file: BinaryIO) -> None:
        """Upload an open binary file from its current position; see :meth:`upload_file`."""
        if file.seekable():
            uri, start = self._uri_to_write("upload", key), file.tell()
            self._upload(uri, lambda: file_body(file, start, repr(key)))
        else:
            self.upload_stream(key, iter(lambda: file.read(1 << 20), b""))

    def upload_bytes(self, key: str, data: bytes) -> None:
        """Upload bytes; see :meth:`upload_file`."""
        self._upload(self._uri_to_write("upload", key), lambda: (data, len(data)))

    def upload_stream(self, key: str, chunks: Iterable[bytes]) -> None:
        """Upload a stream of unknown length.

        Up to 8 MiB are held in memory and retried like a file. A longer stream is sent in chunks
        while it arrives and cannot be retried. If the source raises, the upload is aborted and
        nothing is stored.

        Args:
            key: the object to be.
            chunks: the content, cut anywhere.

        Raises:
            BucketFSError: see :meth:`upload_file`.
        """
        # before the stream is touched: a caller may still use it if this fails
        uri = self._uri_to_write("upload", key)
        self._check_folders(uri.path)
        source = iter(chunks)
        data, complete = first_bytes(source, STREAM_BUFFER_BYTES)
        if complete:
            self._upload(uri, lambda: (data, len(data)))
        else:
            body = chunked_body(data, source, repr(key))
            self._upload(uri, lambda: (body, None), repeatable=False)

    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error, as in BucketFS itself.

        Args:
            key: the object. BucketFS locks it for 10 to 30 seconds after that.

        Raises:
            MissingCredentialsError: no password is set.
            BucketNotFoundError: no such bucket.
            BucketFSError: see the class.
        """
        uri = self._uri_to_write("delete", key)
        request = Request("DELETE", uri, "delete", BucketNotFoundError)
        try:
            _receive(request, self._settings, lambda _: None)
        except BucketNotFoundError:
            # BucketFS answers 200 for a missing object (bucketfs-client ``DeleteCommandIT``), so
            # 404 is about the bucket. Ask, because no test of Exasol's shows that for a deletion.
            if self._is_found(self._list_request()):
                return
            raise

    def require_password(self) -> None:
        """Raise unless a password is set, without which nothing can be written.

        Raises:
            MissingCredentialsError: none is set.
        """
        self._require_password("write")

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
        paths = {key: self._uri_of("upload", key).path for key in keys}
        if paths:
            self._require_password("upload")
        guard = folder_guard(self._uri)
        files_among = partial(self._files_among, "upload artifacts to")
        existing = guard.check(self._uri, paths.values(), files_among, anew=True)
        return {key for key, path in paths.items() if path in existing}

    def as_path(self, key: str = "") -> BucketPath:
        """Return a path object of exasol-bucketfs that works on this transport.

        So whatever takes an ``exasol.bucketfs.path.BucketPath`` gains the pooled connections,
        quoting, retries and timeouts of this class.

        Args:
            key: object or folder; empty for the bucket's root.
        """
        from mlflow_bucketfs_core.exasol_path import bucket_path  # noqa: PLC0415 -- costs 0.5 s

        return bucket_path(self, key)

    def _uri_of(self, verb: str, key: str) -> BucketFSUri:
        """Return the URI of an object.

        Raises:
            InvalidKeyError: the key cannot be one, or is empty.
        """
        path = normalize_key(key)
        if not path:
            raise InvalidKeyError(f"Cannot {verb} {self._uri}: the key of an object is missing.")
        return replace(self._uri, path=path)

    def _uri_to_write(self, verb: str, key: str) -> BucketFSUri:
        """Return the URI of an object that may be written.

        Raises:
            InvalidKeyError: see :meth:`_uri_of`.
            MissingCredentialsError: no password is set.
        """
        uri = self._uri_of(verb, key)
        self._require_password(verb)
        return uri

    def _require_password(self, verb: str) -> None:
        if self._settings.password is None:
            raise MissingCredentialsError(
                f"Cannot {verb} artifacts in {self._uri} without a password: set "
                "EXA_BUCKETFS_PASSWORD to the bucket's write password."
            )

    def _download_request(self, key: str) -> Request:
        return Request("GET", self._uri_of("download", key), "download", ObjectNotFoundError)

    def _list_request(self, verb: str = "list") -> Request:
        return Request("GET", self._uri, verb, BucketNotFoundError)

    def _check_folders(self, path: str) -> FolderGuard:
        """Raise if a file is in the way of an upload; return the bucket's guard."""
        guard = folder_guard(self._uri)
        files_among = partial(self._files_among, f"upload {path!r} to")
        guard.check(self._uri, [path], files_among, anew=False)
        return guard

    def _files_among(self, verb: str, names: set[str]) -> set[str]:
        """Return the names that are files; ``verb`` is what for, in messages."""
        return _list(self._list_request(verb), self._settings, names.intersection)

    def _is_found(self, request: Request) -> bool:
        """Return whether a GET is answered with 200, whatever follows."""

        def attempt() -> bool:
            with suppress(request.not_found), send(request, self._settings):
                return True
            return False

        return self._retry_loop().run(attempt)

    def _upload(
        self,
        uri: BucketFSUri,
        body: Callable[[], tuple[Any, int | None]],
        *,
        repeatable: bool = True,
    ) -> None:
        """Upload one object that no file is in the way of.

        Args:
            uri: the object to be.
            body: returns the body of one try and its size, ``None`` if that is not known.
            repeatable: whether there can be a second try.
        """
        guard = self._check_folders(uri.path)
        request = Request("PUT", uri, "upload", BucketNotFoundError)

        def attempt() -> None:
            content, size = body()
            with send(request, self._settings, content, size=size, streams=size is None):
                pass

        guard.forget(uri.path)
        try:
            self._retry_loop().run(attempt, repeatable=repeatable)
        finally:
            # again: a listing of another thread may have shown a folder of this name meanwhile
            guard.forget(uri.path)

    def _retry_loop(self) -> RetryLoop:
        return RetryLoop(self._settings, self._uri.authority)


def list_buckets(uri: BucketFSUri, settings: ConnectionSettings) -> list[str]:
    """List the buckets of a service: one request, which BucketFS answers without a password too.

    Args:
        uri: names host and port; service, bucket and path in it are ignored.
        settings: credentials and the like.

    Returns:
        The lines of the answer; something that is not BucketFS may send anything.

    Raises:
        HostNotAllowedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` is set and lacks the URI's host.
        UnexpectedResponseError: the answer is none of BucketFS's.
        BucketFSError: see :class:`Bucket`.
    """
    check_host_allowed(settings.allowed_hosts, uri)
    service = BucketFSUri(uri.scheme, uri.host, uri.port)
    request = Request("GET", service, "list the buckets of", UnexpectedResponseError)
    return _list(request, settings, list)


def _list(
    request: Request,
    settings: ConnectionSettings,
    collect: Callable[[Iterator[str]], _Result],
    prefix: str = "",
) -> _Result:
    """Send a request for a listing, as often as necessary, and return what is made of its keys.

    Args:
        request: what to send.
        settings: credentials, timeouts, retries.
        collect: makes the result of the keys; called anew in every try.
        prefix: see :func:`~mlflow_bucketfs_core.listing.keys_under`.
    """

    def consume(response: BaseHTTPResponse) -> _Result:
        return collect(keys_under(read_listing(response, request, settings), prefix))

    return _receive(request, settings, consume)


def _receive(
    request: Request,
    settings: ConnectionSettings,
    consume: Callable[[BaseHTTPResponse], _Result],
) -> _Result:
    """Send a request without a body, as often as necessary, and return the result of its answer.

    Args:
        request: what to send.
        settings: credentials, timeouts, retries.
        consume: makes the result of the answer; called anew in every try.
    """

    def attempt() -> _Result:
        with send(request, settings) as response:
            return consume(response)

    return RetryLoop(settings, request.uri.authority).run(attempt)
