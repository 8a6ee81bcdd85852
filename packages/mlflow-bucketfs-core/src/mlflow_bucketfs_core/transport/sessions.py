"""One pooled HTTP session per endpoint, credentials and process."""

from __future__ import annotations

import base64
import logging
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import Timeout

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.transport.adapter import Adapter
from mlflow_bucketfs_core.transport.timeouts import Timeouts
from mlflow_bucketfs_core.transport.tls_probe import speaks_tls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)

# Sessions kept per process: endpoints in use at the same time, not requests.
_MAX_SESSIONS = 32


class PooledSession:
    """A session and what belongs to it.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.
        streams: see :func:`shared_session`.

    Raises:
        ConfigurationError: the CA bundle does not exist.
    """

    def __init__(
        self, endpoint: str, settings: ConnectionSettings, *, streams: bool = False
    ) -> None:
        self.timeouts = Timeouts(settings.transfer_timeout_s)
        self._endpoint = endpoint
        self._verify = _verify(settings)
        self._headers = _headers(settings)
        self._adapter = Adapter(settings, self.timeouts.idle_s, streams)
        self._routes: dict[tuple[str | None, ...], _Route] = {}
        self._answered = False
        self._uploads_in_flight = 0
        self._lock = threading.Lock()
        if endpoint.startswith("https:") and not self._verify and not settings.cert_fingerprint:
            _warn_about_unverified_certificates()

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None,
    ) -> BaseHTTPResponse:
        """Send one request, once, and return the response with its body unread.

        Redirects are returned, not followed; ``.netrc`` is not read; cookies are not kept;
        proxies and ``REQUESTS_CA_BUNDLE`` from the environment are honoured.

        Args:
            method: ``GET``, ``PUT`` or ``DELETE``.
            url: complete and encoded.
            body: bytes, or an object with ``read`` and ``len``, or an iterator of bytes.
            headers: additional headers.
            timeout_s: seconds to wait for the answer's next bytes; ``None`` for no limit.

        Raises:
            ConfigurationError: ``REQUESTS_CA_BUNDLE`` names no file.
            requests.RequestException: the proxy's URL is no good.
            urllib3.exceptions.HTTPError: anything else.
        """
        route = self._route()
        length = {"Content-Length": str(body.len)} if hasattr(body, "len") else {}
        # Not through requests.Session, whose preparations per request (merging settings, looking
        # for proxies, parsing the URL four times) cost more than the request itself.
        response: BaseHTTPResponse = route.pool.urlopen(
            method,
            route.prefix + url[len(self._endpoint) :],
            body=body,
            headers={**self._headers, **length, **(headers or {})},
            timeout=Timeout(connect=self.timeouts.connect_s, read=timeout_s),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        self._answered = True
        return response

    def speaks_https_instead(self) -> bool:
        """Tell whether the port that was taken for plain HTTP speaks HTTPS, by a handshake.

        Asked when a connection was lost. A server that has answered, and one that only a proxy
        reaches, is not asked: then it is ``False``.
        """
        if self._answered or not self._endpoint.startswith("http:") or self._route().is_proxied:
            return False
        return speaks_tls(self._endpoint, self.timeouts.connect_s)

    def _route(self) -> _Route:
        """Return the way to the endpoint that the environment prescribes now."""
        environment = tuple(map(os.environ.get, _ROUTE_VARIABLES))
        route = self._routes.get(environment)
        if route is None:
            route = self._routes[environment] = self._find_route()
        return route

    def _find_route(self) -> _Route:
        url = f"{self._endpoint}/"
        request = requests.PreparedRequest()
        verify: bool | str = self._verify
        if verify is True:
            verify = (
                os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
            )
        try:
            request.prepare_url(url, None)
            proxies = get_environ_proxies(url)
            pool = self._adapter.get_connection_with_tls_context(request, verify, proxies)
            self._adapter.cert_verify(pool, url, verify, None)  # type: ignore[no-untyped-call]
        except requests.RequestException:
            raise
        except OSError as error:  # requests' own, about a file that does not exist
            raise ConfigurationError(
                f"{error}. Check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE."
            ) from error
        # a proxy for plain HTTP wants to be told the whole URL
        through_proxy = self._adapter.request_url(request, proxies) == url
        is_proxied = select_proxy(url, proxies) is not None
        return _Route(pool, self._endpoint if through_proxy else "", is_proxied)

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


def shared_session(
    endpoint: str, settings: ConnectionSettings, *, streams: bool = False
) -> PooledSession:
    """Return this process's session for an endpoint.

    Ask for it before every operation instead of keeping it: a forked child must not use its
    parent's connections, and gets sessions of its own here.

    Args:
        endpoint: root URL of the BucketFS service.
        settings: credentials, TLS and pool size.
        streams: whether the caller's code runs while a request is under way. It may need another
            connection meanwhile, so these requests never wait for a free one.
    """
    with _state.lock:
        return _state.session_of(endpoint, settings, streams=streams)


@cache
def _warn_about_unverified_certificates() -> None:
    # once per process, in place of urllib3's warning per request
    _logger.warning(
        "EXA_SSL_CERT_VALIDATION=no: certificates are not verified, and whoever can redirect the "
        "network traffic reads password and models. EXA_BUCKETFS_CA_BUNDLE and "
        "EXA_BUCKETFS_CERT_FINGERPRINT make self-signed certificates safe."
    )


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session_of = lru_cache(maxsize=_MAX_SESSIONS)(PooledSession)


_state = _State()


def _forget_sessions() -> None:
    global _state  # noqa: PLW0603 -- the lock may have been held by another thread at the fork
    _state = _State()


os.register_at_fork(after_in_child=_forget_sessions)


# What decides about proxies and trusted certificates.
_ROUTE_VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUEST_METHOD", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


@dataclass(frozen=True)
class _Route:
    """How an endpoint is reached.

    Attributes:
        pool: connections to it, or to the proxy before it.
        prefix: what goes before the path of every request.
        is_proxied: whether a proxy is on the way, of any kind.
    """

    pool: Any
    prefix: str
    is_proxied: bool


def _headers(settings: ConnectionSettings) -> dict[str, str]:
    headers = {
        "User-Agent": "mlflow-bucketfs",
        # BucketFS marks stored .gz files as gzip-encoded (bucketfs-python #204): bodies are taken
        # as they are, and nothing on the way is invited to compress them.
        "Accept-Encoding": "identity",
        "Accept": "*/*",
    }
    if settings.password is not None:
        # Basic auth in UTF-8 sent without being asked, as all clients of BucketFS do; surrogates
        # stand for bytes of the environment that are not UTF-8.
        text = f"{settings.user}:{settings.password}"
        token = base64.b64encode(text.encode("utf-8", "surrogateescape"))
        headers["Authorization"] = f"Basic {token.decode('ascii')}"
    return headers


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
