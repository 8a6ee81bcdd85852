"""How requests connects: urllib3's pools with our TLS options, sizes and timeouts."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

if TYPE_CHECKING:
    from mlflow_bucketfs_core.settings import ConnectionSettings

# Read and written per system call. 16 KiB, urllib3's default, costs a third of the throughput;
# with 256 KiB, Linux's page cache at times looks for contiguous memory so hard that writing a file
# costs six times the processor time (ext4, Linux 6.18).
BLOCK_BYTES = 1 << 16
# Connections kept open for streams, whose number nothing bounds.
_MAX_IDLE_STREAMS = 64


class Adapter(HTTPAdapter):
    """Pools of the right size, with the TLS settings and the timeout for sending.

    Args:
        settings: TLS and pool size.
        send_timeout_s: seconds without the server taking a byte; ``None`` for no limit.
        streams: whether to open more connections rather than wait for a free one.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        send_timeout_s: float | None,
        streams: bool,
    ) -> None:
        self._tls_options: dict[str, Any] = {}
        if settings.tls_hostname is not None:
            self._tls_options["assert_hostname"] = settings.tls_hostname
            self._tls_options["server_hostname"] = settings.tls_hostname
        if settings.cert_fingerprint is not None:
            self._tls_options["assert_fingerprint"] = settings.cert_fingerprint
        self._pool_classes = _pool_classes(send_timeout_s)
        # pool_block: files never have more connections than workers, whoever is asking
        super().__init__(
            pool_maxsize=_MAX_IDLE_STREAMS if streams else settings.max_workers,
            pool_block=not streams,
            max_retries=0,
        )

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, blocksize=BLOCK_BYTES, **options)
        self._set_pool_classes(self.poolmanager, self._pool_classes)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools for connections through a proxy."""
        manager = super().proxy_manager_for(proxy, blocksize=BLOCK_BYTES, **options)
        has_its_own = proxy.lower().startswith("socks")
        classes = type(manager).pool_classes_by_scheme if has_its_own else self._pool_classes
        self._set_pool_classes(manager, classes)
        return manager

    def _set_pool_classes(self, manager: Any, classes: dict[str, Any]) -> None:
        # Not as options of the manager: urllib3 2.2 hands some of them to plain connections too.
        tls = partial(classes["https"], **self._tls_options)
        manager.pool_classes_by_scheme = {**classes, "https": tls}


def _pool_classes(send_timeout_s: float | None) -> dict[str, type[HTTPConnectionPool]]:
    """Make pools whose connections send with a timeout of their own.

    urllib3 sends a body with the timeout for connecting, which is far too short for a server
    that stops reading while it writes to disk.
    """

    class Connection(HTTPConnection):
        def request(self, *args: Any, **options: Any) -> None:
            if self.sock is None:
                self.connect()
            self.timeout = send_timeout_s
            super().request(*args, **options)

    class TlsConnection(HTTPSConnection):
        def connect(self) -> None:
            # Where no authority is asked (a pinned certificate, or no verification), urllib3 would
            # still load all of the system's, 20 ms of processor time per connection. One context
            # for all connections would save that too, and is not safe to share between threads:
            # urllib3 writes into it while it connects (psf/requests #6767).
            if self.ssl_context is None and resolve_cert_reqs(self.cert_reqs) == ssl.CERT_NONE:
                self.ssl_context = create_urllib3_context(cert_reqs=ssl.CERT_NONE)
            super().connect()

        def request(self, *args: Any, **options: Any) -> None:
            self.timeout = send_timeout_s
            super().request(*args, **options)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

        def _validate_conn(self, conn: Any) -> None:
            # without urllib3's warning per request about verification being off
            if conn.is_closed:
                conn.connect()

    return {"http": Pool, "https": TlsPool}
