"""One pooled HTTP session per endpoint, credentials and process."""

from __future__ import annotations

import base64
import logging
import os
import threading
from contextlib import contextmanager
from functools import cache, lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.auth import AuthBase

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.transport.adapter import Adapter
from mlflow_bucketfs_core.transport.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.cookiejar import Cookie
    from urllib.request import Request

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
        self._auth = _PreemptiveAuth(settings)
        self._verify = _verify(settings)
        self._uploads_in_flight = 0
        self._lock = threading.Lock()
        self._session = _Session()
        # Neither redirects nor cookies are part of BucketFS's protocol.
        self._session.cookies.set_policy(_NO_COOKIES)
        self._session.headers.clear()
        self._session.headers["User-Agent"] = "mlflow-bucketfs"
        # BucketFS marks stored .gz files as gzip-encoded (bucketfs-python #204): bodies are taken
        # as they are, and nothing on the way is invited to compress them.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers["Accept"] = "*/*"
        # no other adapter: what this one does not serve must fail, not go without its TLS options
        self._session.adapters.clear()
        self._session.mount(endpoint + "/", Adapter(settings, self.timeouts.idle_s, streams))
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

        Raises:
            ConfigurationError: ``REQUESTS_CA_BUNDLE`` names no file.
            requests.RequestException: anything else.
        """
        try:
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
        except requests.RequestException:
            raise
        except OSError as error:  # those of connections come wrapped; this is requests' own
            raise ConfigurationError(
                f"{error}. Check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE."
            ) from error

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


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is none: even unfollowed, requests would read the answer's body."""


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
            # surrogates stand for bytes of the environment that are not UTF-8
            text = f"{settings.user}:{settings.password}"
            token = base64.b64encode(text.encode("utf-8", "surrogateescape"))
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
