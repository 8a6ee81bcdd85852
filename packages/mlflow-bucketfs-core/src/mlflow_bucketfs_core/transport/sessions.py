"""One pooled HTTP session per endpoint, credentials and process."""

from __future__ import annotations

import base64
import os
import threading
from contextlib import contextmanager
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.transport.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.cookiejar import Cookie
    from urllib.request import Request

    from mlflow_bucketfs_core.settings import ConnectionSettings

# Read and written per system call; 16 KiB, urllib3's default, costs a third of the throughput.
BLOCK_BYTES = 1 << 20
# Sessions kept per process: endpoints in use at the same time, not requests.
_MAX_SESSIONS = 32


class PooledSession:
    """A session and what belongs to it.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.

    Raises:
        ConfigurationError: the CA bundle does not exist.
    """

    def __init__(self, endpoint: str, settings: ConnectionSettings) -> None:
        self.timeouts = Timeouts(settings.transfer_timeout_s)
        self._auth = _PreemptiveAuth(settings)
        self._verify = _verify(settings)
        self._uploads_in_flight = 0
        self._lock = threading.Lock()
        self._session = requests.Session()
        # Neither redirects nor cookies are part of BucketFS's protocol.
        self._session.max_redirects = 0
        self._session.cookies.set_policy(_NO_COOKIES)
        self._session.headers.clear()
        self._session.headers["User-Agent"] = "mlflow-bucketfs"
        # BucketFS marks stored .gz files as gzip-encoded (bucketfs-python #204): bodies are taken
        # as they are, and nothing on the way is invited to compress them.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers["Accept"] = "*/*"
        self._session.mount(endpoint + "/", _Adapter(settings, self.timeouts.idle_s))

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None,
    ) -> requests.Response:
        """Send one request, once, and return the response with its body unread.

        Redirects are returned, not followed; ``.netrc`` is not read; proxies and
        ``REQUESTS_CA_BUNDLE`` from the environment are honoured.

        Args:
            method: ``GET``, ``PUT`` or ``DELETE``.
            url: complete and encoded.
            body: bytes, or an object with ``read``, ``__iter__`` and ``len``.
            headers: additional headers.
            timeout_s: seconds to wait for the answer's next bytes; ``None`` for no limit.
        """
        return self._session.request(
            method,
            url,
            data=body,
            headers=headers,
            auth=self._auth,
            verify=self._verify,
            timeout=(self.timeouts.connect_s, timeout_s),
            allow_redirects=False,
            stream=True,
        )

    @contextmanager
    def upload_in_flight(self) -> Iterator[int]:
        """Count an upload while it runs, and yield how many there are, this one included."""
        with self._lock:
            self._uploads_in_flight += 1
            number = self._uploads_in_flight
        try:
            yield number
        finally:
            with self._lock:
                self._uploads_in_flight -= 1


def shared_session(endpoint: str, settings: ConnectionSettings) -> PooledSession:
    """Return this process's session for an endpoint.

    Ask for it before every operation instead of keeping it: a forked child must not use its
    parent's connections, and gets sessions of its own here.
    """
    with _state.lock:
        return _state.session_of(endpoint, settings)


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session_of = lru_cache(maxsize=_MAX_SESSIONS)(PooledSession)


_state = _State()


def _forget_sessions() -> None:
    global _state  # noqa: PLW0603 -- the lock may have been held by another thread at the fork
    _state = _State()


os.register_at_fork(after_in_child=_forget_sessions)


class _NoCookies(DefaultCookiePolicy):
    """Accept no cookie, from nobody."""

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        del cookie, request
        return False


_NO_COOKIES = _NoCookies()


class _PreemptiveAuth(AuthBase):
    """Basic auth in UTF-8 sent without being asked, as all clients of BucketFS do.

    Without a password it sends nothing, and its mere presence keeps requests from looking into
    ``.netrc``.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._header: str | None = None
        if settings.password is not None:
            token = base64.b64encode(f"{settings.user}:{settings.password}".encode())
            self._header = f"Basic {token.decode('ascii')}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return request


def _verify(settings: ConnectionSettings) -> bool | str:
    if settings.ca_bundle is not None:
        if not Path(settings.ca_bundle).exists():
            raise ConfigurationError(
                f"EXA_BUCKETFS_CA_BUNDLE={settings.ca_bundle!r} does not exist. It takes the path "
                "of a PEM file with the certificates to trust."
            )
        return settings.ca_bundle
    # A pinned certificate needs no authority to vouch for it.
    return settings.verify_tls and settings.cert_fingerprint is None


class _Adapter(HTTPAdapter):
    """Pools of the right size, with the TLS settings and the timeout for sending."""

    def __init__(self, settings: ConnectionSettings, send_timeout_s: float | None) -> None:
        self._pool_options: dict[str, Any] = {"blocksize": BLOCK_BYTES}
        if settings.tls_hostname is not None:
            self._pool_options["assert_hostname"] = settings.tls_hostname
            self._pool_options["server_hostname"] = settings.tls_hostname
        if settings.cert_fingerprint is not None:
            self._pool_options["assert_fingerprint"] = settings.cert_fingerprint
        self._pool_classes = _pool_classes(send_timeout_s)
        # pool_block: a process never has more connections than workers, whoever is asking
        super().__init__(pool_maxsize=settings.max_workers, pool_block=True, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **{**options, **self._pool_options})
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options, **self._pool_options)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager


def _pool_classes(send_timeout_s: float | None) -> dict[str, type[HTTPConnectionPool]]:
    """Make pools whose connections send with a timeout of their own.

    urllib3 sends a body with the timeout for connecting, which is far too short for a server
    that stops reading while it writes to disk.
    """

    class Connection(HTTPConnection):
        def request(self, *args: Any, **options: Any) -> None:
            self.timeout = send_timeout_s
            super().request(*args, **options)

    class TlsConnection(HTTPSConnection):
        def request(self, *args: Any, **options: Any) -> None:
            self.timeout = send_timeout_s
            super().request(*args, **options)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}
