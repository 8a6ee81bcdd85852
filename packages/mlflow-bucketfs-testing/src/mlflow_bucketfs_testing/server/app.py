"""The protocol: what each request does, and which status it is answered with."""

from __future__ import annotations

import asyncio
import mimetypes
import random
import time
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect

from mlflow_bucketfs_testing.server.exchange import CutOffError, Exchange
from mlflow_bucketfs_testing.server.names import (
    IllegalNameError,
    parse_target,
    split_absolute_form,
)
from mlflow_bucketfs_testing.server.storage import PORTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from mlflow_bucketfs_testing.server.auth import BucketConfig, HostNames
    from mlflow_bucketfs_testing.server.faults import FaultList
    from mlflow_bucketfs_testing.server.profiles import Behaviour, Profile
    from mlflow_bucketfs_testing.server.request_log import RequestLog
    from mlflow_bucketfs_testing.server.storage import Store, Upload

_Result = TypeVar("_Result")

_METHODS = ("GET", "PUT", "DELETE")
_READ_BYTES = 512 * 1024
_KEYS_PER_WRITE = 1000
# of its own, so that the machine's mime.types has no say
_MIME_TYPES = mimetypes.MimeTypes()


class BucketFSApp:
    """An ASGI application that speaks BucketFS.

    Args:
        store: The objects.
        buckets: The buckets; the store's other buckets are not served.
        host_names: The names that requests may call the server by.
        profile: Delays and locks.
        behaviour: Knobs.
        faults: Faults to take from, per request.
        log: Log to write to.
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
        """Let all keys be written again, however lately they were deleted."""
        self._locked_until.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send, self._log)
        try:
            await self._answer(exchange)
        except (ClientDisconnect, CutOffError):
            pass
        finally:
            exchange.record()

    async def _answer(self, exchange: Exchange) -> None:
        authority, path = split_absolute_form(exchange.raw_path)
        host = exchange.host if authority is None else authority
        try:
            self._host_names.check(host, exchange.local_address, exchange.scheme)
            exchange.target = parse_target(path, may_be_folder=exchange.method == "GET")
        except IllegalNameError as exc:
            await exchange.reply(400, f"400: {exc}\n")
            return
        method, (bucket_name, key) = exchange.method, exchange.target
        fault = exchange.fault = self._faults.take(method, bucket_name, key)
        if fault and fault.action == "status":
            headers = {"retry-after": fault.retry_after, "location": fault.location}
            await exchange.reply(
                fault.status_code,
                f"{fault.status_code}: injected fault\n",
                {name: value for name, value in headers.items() if value is not None},
            )
        elif method not in (_METHODS if key else _METHODS[:1]):
            allowed = ", ".join(_METHODS if key else _METHODS[:1])
            await exchange.reply(405, "405: method not allowed\n", {"allow": allowed})
        elif not bucket_name:
            # no password needed (bucketfs-python, test_service_onprem)
            await exchange.reply(200, "".join(f"{name}\n" for name in self._buckets))
        elif bucket_name not in self._buckets:
            await exchange.reply(404, "404: no such bucket\n")
        elif not self._allowed(exchange):
            await self._refuse(exchange)
        elif method == "PUT":
            await self._put(exchange)
        elif method == "DELETE":
            await self._delete(exchange)
        elif key:
            await self._get(exchange)
        else:
            await self._list(exchange)

    def _allowed(self, exchange: Exchange) -> bool:
        bucket = self._buckets[exchange.target.bucket]
        if exchange.method == "GET":
            return bucket.may_read(exchange.credentials)
        return bucket.may_write(exchange.credentials)

    async def _refuse(self, exchange: Exchange) -> None:
        if exchange.credentials is not None:
            await exchange.reply(403, "403: forbidden\n")
            return
        status = self._behaviour.unauthorized_status
        challenge = status == 401 and self._behaviour.challenge  # noqa: PLR2004 -- HTTP's number
        headers = {"www-authenticate": 'Basic realm="BucketFS"'} if challenge else {}
        await exchange.reply(status, f"{status}: password required\n", headers)

    async def _list(self, exchange: Exchange) -> None:
        keys = self._store.keys(exchange.target.bucket)
        if self._behaviour.shuffle_listing:
            random.shuffle(keys)
        headers = {"content-type": self._behaviour.listing_content_type}
        await exchange.start(200, headers, None if keys else 0)
        for start in range(0, len(keys), _KEYS_PER_WRITE):
            lines = "".join(f"{key}\n" for key in keys[start : start + _KEYS_PER_WRITE])
            await exchange.write(lines.encode())
            # other connections get their turn, and so does the news that this client has left
            await asyncio.sleep(0)
        await exchange.write(b"", last=True)

    async def _get(self, exchange: Exchange) -> None:
        opened = self._store.open(*exchange.target)
        if opened is None:
            await exchange.reply(404, "404: no such file\n")
            return
        file, size = opened
        with file:
            content_type, encoding = _MIME_TYPES.guess_type(f"/{exchange.target.key}")
            headers = {"content-type": content_type or "application/octet-stream"}
            if encoding == "gzip" and self._behaviour.content_encoding_gzip:
                # stored bytes are sent as they are, yet called encoded (bucketfs-python #204)
                headers["content-encoding"] = "gzip"
            await exchange.start(200, headers, size if self._behaviour.content_length else None)
            while size > _READ_BYTES:
                data = await _in_thread(file.read, _READ_BYTES)
                size -= len(data)
                await exchange.write(data)
            await exchange.write(file.read(size), last=True)

    async def _put(self, exchange: Exchange) -> None:
        bucket, key = exchange.target
        if self._locked_until.get((bucket, key), 0.0) > time.monotonic():
            status = self._behaviour.locked_status
            await exchange.reply(status, f"{status}: deleted a moment ago, still locked\n")
            return
        upload = self._store.upload()
        try:
            async for data in exchange.body():
                if upload.add(data):
                    await _in_thread(upload.flush)
            await asyncio.sleep(
                exchange.started + self._profile.put_duration_s(upload.size) - time.monotonic()
            )
            in_the_way = self._store.file_in_the_way(bucket, key)
            if not (in_the_way or (exchange.fault and exchange.fault.action == "lose")):
                await self._publish(upload, bucket, key)
        finally:
            upload.discard()
        if in_the_way and self._behaviour.file_in_the_way == "hang":
            await exchange.hang()
        if in_the_way and self._behaviour.file_in_the_way == "error":
            await exchange.reply(409, "409: a parent of this name is a file\n")
        else:
            await exchange.reply(200)

    async def _publish(self, upload: Upload, bucket: str, key: str) -> None:
        if upload.size < PORTION_BYTES:  # a thread would cost more than the write
            upload.publish(bucket, key)
        else:
            await _in_thread(upload.publish, bucket, key)

    async def _delete(self, exchange: Exchange) -> None:
        async for _ in exchange.body():
            pass
        if self._store.delete(*exchange.target) and self._profile.lock_after_delete_s:
            now = time.monotonic()
            self._locked_until = {
                target: until for target, until in self._locked_until.items() if until > now
            }
            self._locked_until[exchange.target] = now + self._profile.lock_after_delete_s
        await exchange.reply(200)


async def _in_thread(function: Callable[..., _Result], *args: object) -> _Result:
    """Run blocking disk I/O beside the loop; when cancelled, wait for it to end.

    Otherwise the caller would close a file that the thread is still using.
    """
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
