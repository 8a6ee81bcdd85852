"""Operations on the objects of one bucket, over HTTP."""

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

# A stream cannot be rewound for a retry: up to this size it is held in memory instead.
STREAM_BUFFER_BYTES = 8 << 20


class Bucket:
    """A client for the objects of one bucket, which are addressed by key.

    Creating an instance sends nothing. All instances of a process share one pool of connections
    per server and credentials. Instances are safe to use from many threads and after a fork.

    Every operation is retried after a lost connection and the statuses 408, 423, 429 and 5xx,
    with exponential back-off, for at most 60 s of waiting in addition to the transfer. There are
    only three attempts if the connection is refused or the host name does not resolve, unless the
    server answered in the last 60 s.

    Args:
        uri: names service and bucket; a path in it is ignored.
        settings: credentials, timeouts and the like; from the environment if ``None``.

    Raises:
        InvalidUriError: the URI names no bucket.
        ConfigurationError: an environment variable has a bad value.
        HostNotAllowedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` is set without the URI's host.
    """

    def __init__(self, uri: BucketFSUri | str, settings: ConnectionSettings | None = None) -> None:
        parsed = BucketFSUri.parse(uri) if isinstance(uri, str) else uri
        self._uri = replace(parsed.require_bucket(), path="")
        self._settings = ConnectionSettings.from_env() if settings is None else settings
        check_host_allowed(self._settings.allowed_hosts, self._uri)

    def __repr__(self) -> str:
        """Return the class name and the URI, which contains no secrets."""
        return f"{type(self).__name__}({str(self._uri)!r})"

    def __eq__(self, other: object) -> bool:
        """Compare URI and settings, as exasol-bucketfs does before it relates two paths."""
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
        """List the keys that equal ``prefix`` or are below it, with one request.

        The server sends the listing of the complete bucket; only the matches are kept in memory.

        Args:
            prefix: folder or key; empty for all keys. ``foo`` does not match ``foobar``.

        Returns:
            The keys, in the server's order, which is not defined.

        Raises:
            BucketNotFoundError: the bucket does not exist.
            UnexpectedResponseError: the listing is longer than 1 GiB, or 10,000,000 keys.
            BucketFSError: the request failed for another reason.
        """
        key = normalize_key(prefix)
        return _list(self._list_request(), self._settings, list, key)

    def exists(self, key: str) -> bool:
        """Return whether an object has exactly this key; a folder is not an object.

        Sends one GET and does not read the body, so that an object of more than 64 KiB closes the
        connection.

        Raises:
            BucketFSError: the request failed.
        """
        uri = self._uri_of("look up", key)
        return self._is_found(Request("GET", uri, "look up", ObjectNotFoundError))

    def download_file(self, key: str, local_path: str | os.PathLike[str]) -> None:
        """Download an object into a file, atomically.

        The length is verified if the server announces it. Only a complete download creates the
        file, or replaces an existing one.

        Args:
            key: the object.
            local_path: the file, in a directory that exists.

        Raises:
            ObjectNotFoundError: no object has this key.
            IncompleteTransferError: the connection ended early in every attempt.
            BucketFSError: the request failed for another reason.
            OSError: the file cannot be written; the error names it.
        """
        target = Path(local_path)
        request = self._download_request(key)

        def write(response: BaseHTTPResponse) -> None:
            with atomic_file(target) as file:
                file.writelines(read_body(response, request))

        _receive(request, self._settings, write)

    def iter_content(self, key: str) -> Iterator[bytes]:
        """Yield an object's content in blocks, as it arrives.

        Only failures before the first block are retried; later ones are raised.

        Raises:
            ObjectNotFoundError: no object has this key.
            BucketFSError: the request failed for another reason.
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
        """Upload a file; an object with the same key is replaced.

        Returns once all nodes of the cluster have the bytes, which takes BucketFS about a second
        at least. Lists the bucket first, unless a recent listing shows that no file is in the way.

        Args:
            key: the object to write.
            local_path: the file to upload; memory does not grow with its size.

        Raises:
            MissingCredentialsError: no password is set.
            PathBlockedError: one of the key's folders exists as a file.
            InvalidKeyError: the key is not valid.
            BucketFSError: the request failed for another reason.
            OSError: the file cannot be read; the error names it.
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
            key: the object to write.
            chunks: the content, in chunks of any size.

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
        """Delete an object; a missing object is not an error, as in BucketFS itself.

        Args:
            key: the object, which BucketFS locks for 10 to 30 seconds after the deletion.

        Raises:
            MissingCredentialsError: no password is set.
            BucketNotFoundError: the bucket does not exist.
            BucketFSError: the request failed for another reason.
        """
        uri = self._uri_to_write("delete", key)
        request = Request("DELETE", uri, "delete", BucketNotFoundError)
        try:
            _receive(request, self._settings, lambda _: None)
        except BucketNotFoundError:
            # BucketFS answers 200 for a missing object (bucketfs-client ``DeleteCommandIT``), so
            # 404 should mean a missing bucket. No test of Exasol's shows that: check it.
            if self._is_found(self._list_request()):
                return
            raise

    def require_password(self) -> None:
        """Raise unless a password is set, which every write needs.

        Raises:
            MissingCredentialsError: no password is set.
        """
        self._require_password("write")

    def prepare_uploads(self, keys: Iterable[str]) -> set[str]:
        """Check that these keys can be uploaded, and return those that exist, with one request.

        Each upload checks that no file is in the way of its key, for which a listing of the last
        60 s is enough. Call this method before many uploads, which then need no listing of their
        own, or to find out which objects they will replace.

        Args:
            keys: the objects to write; if empty, no request is sent.

        Returns:
            The keys of objects that exist already.

        Raises:
            MissingCredentialsError: no password is set.
            InvalidKeyError: a key is not valid.
            PathBlockedError: one of the keys' folders exists as a file.
            BucketFSError: the bucket cannot be listed.
        """
        paths = {key: self._uri_of("upload", key).path for key in keys}
        if paths:
            self._require_password("upload")
        guard = folder_guard(self._uri)
        files_among = partial(self._files_among, "upload artifacts to")
        existing = guard.check(self._uri, paths.values(), files_among, refresh=True)
        return {key for key, path in paths.items() if path in existing}

    def as_path(self, key: str = "") -> BucketPath:
        """Return a path object of exasol-bucketfs that uses this transport.

        Code that takes an ``exasol.bucketfs.path.BucketPath`` then has the pooled connections,
        quoting, retries and timeouts of this class.

        Args:
            key: object or folder; empty for the bucket's root.
        """
        from mlflow_bucketfs_core.exasol_path import bucket_path  # noqa: PLC0415 -- costs 0.5 s

        return bucket_path(self, key)

    def _uri_of(self, verb: str, key: str) -> BucketFSUri:
        """Return the URI of an object.

        Raises:
            InvalidKeyError: the key is not valid, or empty.
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
        guard.check(self._uri, [path], files_among, refresh=False)
        return guard

    def _files_among(self, verb: str, names: set[str]) -> set[str]:
        """Return the names that are files; ``verb`` is the operation, for messages."""
        return _list(self._list_request(verb), self._settings, names.intersection)

    def _is_found(self, request: Request) -> bool:
        """Return whether a GET is answered with 200; the body is not read."""

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
        """Upload one object, after a check that no file is in the way.

        Args:
            uri: the object to write.
            body: returns the body for one attempt, and its size or ``None`` if that is not known.
            repeatable: whether ``body`` can be called again for a retry.
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
    """List the buckets of a service with one request, which needs no password.

    Args:
        uri: names host and port; service, bucket and path in it are ignored.
        settings: credentials, timeouts and the like.

    Returns:
        The lines of the response, unchecked: a server that is not BucketFS may send any text.

    Raises:
        HostNotAllowedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` is set without the URI's host.
        UnexpectedResponseError: the response does not come from BucketFS.
        BucketFSError: the request failed for another reason.
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
    """Send a request for a listing, with retries, and return the result of ``collect``.

    Args:
        request: the request to send.
        settings: credentials, timeouts, retries.
        collect: computes the result from the keys; called once per attempt.
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
    """Send a request without a body, with retries, and return the result of ``consume``.

    Args:
        request: the request to send.
        settings: credentials, timeouts, retries.
        consume: computes the result from the response; called once per attempt.
    """

    def attempt() -> _Result:
        with send(request, settings) as response:
            return consume(response)

    return RetryLoop(settings, request.uri.authority).run(attempt)
