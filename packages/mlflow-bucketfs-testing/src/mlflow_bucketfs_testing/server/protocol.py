"""The BucketFS protocol: names, passwords, and the effect and status of each request."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import mimetypes
import random
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect

from mlflow_bucketfs_testing.errors import Secret
from mlflow_bucketfs_testing.server.request import ConnectionClosedError, ServerRequest, Target
from mlflow_bucketfs_testing.server.storage import PORTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.types import Receive, Scope, Send

    from mlflow_bucketfs_testing.server.faults import FaultList
    from mlflow_bucketfs_testing.server.profiles import Behaviour, Profile
    from mlflow_bucketfs_testing.server.request import Credentials
    from mlflow_bucketfs_testing.server.request_log import RequestLog
    from mlflow_bucketfs_testing.server.storage import Store, Upload

_Result = TypeVar("_Result")

_logger = logging.getLogger("mlflow_bucketfs_testing.server")

_METHODS = ("GET", "PUT", "DELETE")
_READ_BYTES = 512 * 1024
_KEYS_PER_WRITE = 1000
# a new instance, so that the machine's mime.types is not used
_MIME_TYPES = mimetypes.MimeTypes()
# A key becomes a path on the nodes' file system, where a name may have this many bytes.
_MAX_SEGMENT_BYTES = 255
# A path has at most 4096 bytes; this leaves room for the folders above the bucket.
_MAX_KEY_BYTES = 3072
_READ_USER = "r"
_WRITE_USER = "w"


class IllegalNameError(ValueError):
    """A bucket, key or host name that this server refuses (400 over HTTP)."""


@dataclass(frozen=True)
class BucketConfig:
    """A bucket and its passwords (the defaults are public).

    Attributes:
        name: bucket name, the first segment of its URLs.
        public: whether reading needs no password (docs.exasol.com, BucketFS "Access control").
        read_password: password of the user ``r``: may read.
        write_password: password of the user ``w``: may read and write.
    """

    name: str
    public: bool = True
    read_password: str = field(default="read", repr=False)
    write_password: str = field(default="write", repr=False)

    def __post_init__(self) -> None:
        """Refuse a name that cannot be one path segment, and mask the passwords.

        Raises:
            ValueError: the name is empty, ``.`` or ``..``, or contains a slash.
        """
        if self.name in {"", ".", ".."} or "/" in self.name:
            raise ValueError(f"not a bucket name: {self.name!r}")
        object.__setattr__(self, "read_password", Secret(self.read_password))
        object.__setattr__(self, "write_password", Secret(self.write_password))

    def may_read(self, credentials: Credentials | None) -> bool:
        """Return whether these credentials may list and download.

        A public bucket ignores them: a wrong read password is answered with 200
        (bucketfs-java, SyncAwareBucketIT).
        """
        return (
            self.public
            or self.may_write(credentials)
            or credentials == (_READ_USER, self.read_password)
        )

    def may_write(self, credentials: Credentials | None) -> bool:
        """Return whether these credentials may upload and delete."""
        return credentials == (_WRITE_USER, self.write_password)


class HostNames:
    """The host names that the server accepts in requests.

    Another name may belong to a web page whose author made it resolve to this server (DNS
    rebinding): the browser would then let the page read the responses. Whether BucketFS checks host
    names is unknown.

    Args:
        host: name or address that the server listens on.
        certificate_name: name in its certificate, which HTTPS requests may use; None without one.
        allowed: further names, with or without port; ``*`` stands for any characters.
    """

    def __init__(self, host: str, certificate_name: str | None, allowed: Iterable[str]) -> None:
        self._certificate_name = certificate_name
        # a bracket starts an IPv6 address, not a set of characters
        self._patterns = [name.lower().replace("[", "[[]") for name in (host, *allowed)]

    def check(self, host: str | None, local_address: str, scheme: str) -> None:
        """Raise if a request uses another host name.

        Args:
            host: value of the ``Host`` header. None is accepted: HTTP/1.0 needs no such header,
                and browsers always send one.
            local_address: address of this machine that the client is connected to.
            scheme: ``http`` or ``https``.

        Raises:
            IllegalNameError: the name is not accepted.
        """
        if host is not None and not self._allow(host.lower(), local_address, scheme):
            raise IllegalNameError(
                f"{host!r} is not a host name of this server: allow it with allowed_hosts=[…], "
                "or with --allowed-host of `mlflow-bucketfs-testing serve`"
            )

    def _allow(self, host: str, local_address: str, scheme: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        name = name.removesuffix(".")
        address, local = _ip_address(name), _ip_address(local_address)
        return (
            any(fnmatchcase(text, pattern) for text in (host, name) for pattern in self._patterns)
            or (address is not None and address == local)
            or (scheme == "https" and name == self._certificate_name)
            or (
                local is not None
                and local.is_loopback
                and (name == "localhost" or (address is not None and address.is_loopback))
            )
        )


class BucketFSApp:
    """An ASGI application that implements the BucketFS protocol.

    Args:
        store: the objects.
        buckets: the buckets; the store's other buckets are not served.
        host_names: the accepted host names.
        profile: delays and locks.
        behaviour: options of the protocol.
        faults: faults to inject.
        log: log of the requests.
    """

    def __init__(
        self,
        store: Store,
        buckets: Sequence[BucketConfig],
        *,
        host_names: HostNames,
        profile: Profile,
        behaviour: Behaviour,
        faults: FaultList,
        log: RequestLog,
    ) -> None:
        self._store = store
        self._buckets = {bucket.name: bucket for bucket in buckets}
        self._host_names = host_names
        self._profile = profile
        self._behaviour = behaviour
        self._faults = faults
        self._log = log
        self._locked_until: dict[tuple[str, str], float] = {}

    def forget_locks(self) -> None:
        """Remove the locks of all deleted keys."""
        self._locked_until.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = ServerRequest(scope, receive, send, self._log)
        try:
            await self._answer(request)
        except (ClientDisconnect, ConnectionClosedError):
            pass
        except OSError as error:  # a full disk, for example: nothing has changed
            path = request.raw_path.decode("ascii", "replace")
            _logger.warning("%s %s failed: %s", request.method, path, error)
            with suppress(ClientDisconnect, ConnectionClosedError):
                await request.fail(f"500: {error.strerror}\n")
        finally:
            request.record()

    async def _answer(self, request: ServerRequest) -> None:
        authority, path = _split_absolute_form(request.raw_path)
        host = request.host if authority is None else authority
        try:
            self._host_names.check(host, request.local_address, request.scheme)
            request.target = parse_target(path, may_be_folder=request.method == "GET")
        except IllegalNameError as error:
            await request.reply(400, f"400: {error}\n")
            return
        method, (bucket_name, key) = request.method, request.target
        fault = request.fault = self._faults.take(method, bucket_name, key)
        if fault and fault.action == "status":
            headers = {"retry-after": fault.retry_after, "location": fault.location}
            await request.reply(
                fault.status_code,
                f"{fault.status_code}: injected fault\n",
                {name: value for name, value in headers.items() if value is not None},
            )
        elif method not in (_METHODS if key else _METHODS[:1]):
            allowed = ", ".join(_METHODS if key else _METHODS[:1])
            await request.reply(405, "405: method not allowed\n", {"allow": allowed})
        elif not bucket_name:
            # no password needed (bucketfs-python, test_service_onprem)
            await request.reply(200, "".join(f"{name}\n" for name in self._buckets))
        elif bucket_name not in self._buckets:
            await request.reply(404, "404: no such bucket\n")
        elif not self._allowed(request):
            await self._reply_unauthorized(request)
        elif method == "PUT":
            await self._put(request)
        elif method == "DELETE":
            await self._delete(request)
        elif key:
            await self._get(request)
        else:
            await self._list(request)

    def _allowed(self, request: ServerRequest) -> bool:
        bucket = self._buckets[request.target.bucket]
        if request.method == "GET":
            return bucket.may_read(request.credentials)
        return bucket.may_write(request.credentials)

    async def _reply_unauthorized(self, request: ServerRequest) -> None:
        if request.credentials is not None:
            await request.reply(403, "403: forbidden\n")
            return
        headers = {"www-authenticate": 'Basic realm="BucketFS"'}
        await request.reply(401, "401: password required\n", headers)

    async def _list(self, request: ServerRequest) -> None:
        keys = self._store.keys(request.target.bucket)
        if self._behaviour.shuffle_listing:
            random.shuffle(keys)
        # always UTF-8, although the type names no charset
        await request.start(200, {"content-type": "text/plain"}, None if keys else 0)
        for start in range(0, len(keys), _KEYS_PER_WRITE):
            lines = "".join(f"{key}\n" for key in keys[start : start + _KEYS_PER_WRITE])
            await request.write(lines.encode())
            # lets the loop serve other connections, and notice that this client has disconnected
            await asyncio.sleep(0)
        await request.write(b"", last=True)

    async def _get(self, request: ServerRequest) -> None:
        opened = self._store.open(*request.target)
        if opened is None:
            await request.reply(404, "404: no such file\n")
            return
        file, size = opened
        with file:
            content_type, encoding = _MIME_TYPES.guess_type(f"/{request.target.key}")
            headers = {"content-type": content_type or "application/octet-stream"}
            if encoding == "gzip":
                # stored bytes are sent unchanged, but declared as encoded (bucketfs-python #204)
                headers["content-encoding"] = "gzip"
            await request.start(200, headers, size if self._behaviour.content_length else None)
            while size > _READ_BYTES:
                data = await _in_thread(file.read, _READ_BYTES)
                size -= len(data)
                await request.write(data)
            await request.write(file.read(size), last=True)

    async def _put(self, request: ServerRequest) -> None:
        bucket, key = request.target
        if self._locked_until.get((bucket, key), 0.0) > time.monotonic():
            await request.reply(423, "423: locked after a recent deletion\n")
            return
        upload = self._store.upload()
        try:
            async for data in request.body():
                if upload.add(data):
                    await _in_thread(upload.flush)
            await asyncio.sleep(
                request.started + self._profile.put_duration_s(upload.size) - time.monotonic()
            )
            in_the_way = self._store.file_in_the_way(bucket, key)
            if not (in_the_way or (request.fault and request.fault.action == "lose")):
                await self._publish(upload, bucket, key)
        finally:
            upload.discard()
        if in_the_way and self._behaviour.file_in_the_way == "hang":
            await request.hang()
        if in_the_way and self._behaviour.file_in_the_way == "error":
            await request.reply(409, "409: a parent of this name is a file\n")
        else:
            await request.reply(200)

    async def _publish(self, upload: Upload, bucket: str, key: str) -> None:
        if upload.size < PORTION_BYTES:  # a thread would cost more than the write
            upload.publish(bucket, key)
        else:
            await _in_thread(upload.publish, bucket, key)

    async def _delete(self, request: ServerRequest) -> None:
        async for _ in request.body():
            pass
        if self._store.delete(*request.target) and self._profile.lock_after_delete_s:
            now = time.monotonic()
            self._locked_until = {
                target: until for target, until in self._locked_until.items() if until > now
            }
            self._locked_until[request.target] = now + self._profile.lock_after_delete_s
        await request.reply(200)


async def _in_thread(function: Callable[..., _Result], *args: object) -> _Result:
    """Run blocking disk I/O in a thread; if cancelled, wait for its end.

    Otherwise the caller would close a file that the thread is still using.
    """
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _split_absolute_form(raw_path: bytes) -> tuple[str | None, bytes]:
    """Split ``http://host/path``, the form of a request to a proxy, into host and path.

    RFC 9112 (3.2.2) requires every server to accept it.

    Returns:
        Host with port, and the path; None and the unchanged argument for any other form.
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
        raw_path: the path, without the query and without a host, see `_split_absolute_form`.
        may_be_folder: whether the key may end with a slash. No object has such a name, so that a
            PUT or DELETE of it would succeed and do nothing.

    Raises:
        IllegalNameError: the path does not begin with one slash, or the name is not UTF-8 or is
            illegal, see `check_key`.
    """
    if not raw_path.startswith(b"/"):
        raise IllegalNameError("the path does not begin with a slash")
    raw_bucket, _, raw_key = raw_path[1:].partition(b"/")
    if not raw_bucket and raw_path != b"/":
        # BucketFS's response is unknown. The list of buckets would be a success without effect
        raise IllegalNameError("the bucket's name is empty: the path begins with two slashes")
    try:
        bucket = unquote_to_bytes(raw_bucket).decode()
        key = unquote_to_bytes(raw_key).decode()
    except UnicodeDecodeError as error:
        raise IllegalNameError("the name is not UTF-8") from error
    if key:
        check_key(key.removesuffix("/") if may_be_folder else key)
    return Target(bucket, key)


def check_key(key: str) -> None:
    """Raise unless a key can be a path below the bucket's folder on a Linux node.

    Args:
        key: full key, ``/``-separated, decoded.

    Raises:
        IllegalNameError: a segment is empty, ``.``, ``..`` or longer than 255 bytes, or the key
            is longer than 3072 bytes or has a control character (a newline would break every
            client's listing).
    """
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise IllegalNameError(f"a key has at most {_MAX_KEY_BYTES} bytes")
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise IllegalNameError("control character in the name")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise IllegalNameError(f"{segment!r} is not a name")
        if len(segment.encode()) > _MAX_SEGMENT_BYTES:
            raise IllegalNameError(f"a name has at most {_MAX_SEGMENT_BYTES} bytes")


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # the form of an IPv4 address on a listener for IPv4 and IPv6
    return getattr(address, "ipv4_mapped", None) or address
