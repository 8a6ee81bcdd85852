"""`BucketFSServer`: the embedded BucketFS as one object."""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.server.faults import Fault, FaultList
from mlflow_bucketfs_testing.server.mount import Mount
from mlflow_bucketfs_testing.server.profiles import (
    Behaviour,
    FileInTheWay,
    Profile,
    resolve_profile,
)
from mlflow_bucketfs_testing.server.protocol import (
    BucketConfig,
    BucketFSApp,
    HostNames,
    check_key,
)
from mlflow_bucketfs_testing.server.request_log import RequestLog
from mlflow_bucketfs_testing.server.sockets import Listener, ServerThread, bind
from mlflow_bucketfs_testing.server.storage import Store
from mlflow_bucketfs_testing.server.tls import Certificate, generate_certificate, load_certificate

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Iterable

    from typing_extensions import Self  # in typing since Python 3.11

_DEFAULT_BUCKETS = (BucketConfig("default"),)
_NO_TLS = "the server has no HTTPS listener: pass tls_port (0 picks a free port)"


class BucketFSServer:
    """A BucketFS that runs in a thread of this process; a context manager.

    It starts at the beginning of the ``with`` block (or by `start`). At the end of the block (or by
    `stop`) it aborts open connections and stops. All methods are thread-safe. Requests are not
    logged to the console.

    Args:
        buckets: the buckets; the first one is the default of all methods.
        service: name of the BucketFS service: part of URIs and of the mount, never of URLs.
        host: address to listen on. The passwords are public: use an address other than loopback
            only in a network that you trust.
        port: port for HTTP; 0 picks a free one.
        tls_port: additional port for HTTPS; 0 picks a free one; None: no HTTPS.
        tls_certificate: name in the self-signed certificate: ``exacluster.local``, as in
            Exasol's own, or ``localhost`` (with ``127.0.0.1`` and ``::1``).
        allowed_hosts: further names (``host``, ``host:port``, ``*.example.com``) to accept in the
            ``Host`` header. Always accepted are ``host``, the address that the client is connected
            to, ``localhost`` and all loopback addresses on loopback, and over HTTPS the
            certificate's name. Any other name is answered with 400.
        data_dir: directory that keeps the objects and the certificate for later servers, created
            if missing; None: a temporary one, removed at the end.
        profile: ``instant``, ``docker-db`` (a PUT takes 1 s plus 1 s per 100 MB; a deleted key
            is locked for 10 s), or a `.Profile`.
        content_length: whether a download has ``Content-Length``; else it is chunked.
        shuffle_listing: whether each listing has a random order; else oldest upload first.
        file_in_the_way: effect of a PUT of ``d/x`` while ``d`` is an object: ``lose`` (200, not
            stored), ``hang`` (no response), ``error`` (409).
        archive_visible_on_mount: whether an archive's own file is visible beside its unpacked tree.

    Raises:
        ValueError: no bucket, two buckets of the same name, a service name that cannot be one
            path segment, or an unknown choice.
    """

    def __init__(
        self,
        buckets: Iterable[BucketConfig] = _DEFAULT_BUCKETS,
        *,
        service: str = "bfsdefault",
        host: str = "127.0.0.1",
        port: int = 0,
        tls_port: int | None = None,
        tls_certificate: str = "exacluster.local",
        allowed_hosts: Iterable[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
        profile: str | Profile = "instant",
        content_length: bool = True,
        shuffle_listing: bool = False,
        file_in_the_way: FileInTheWay = "lose",
        archive_visible_on_mount: bool = False,
    ) -> None:
        self.buckets = tuple(buckets)
        if not self.buckets or len({bucket.name for bucket in self.buckets}) < len(self.buckets):
            raise ValueError("pass one or more buckets, each with a different name")
        if service in {"", ".", ".."} or "/" in service:  # a folder of the mount has this name
            raise ValueError(f"not a service name: {service!r}")
        self.service = service
        self.host = host
        self.requests = RequestLog()
        """The requests so far, see `.RequestLog`."""
        self.faults = FaultList()
        """The injected faults that are not used up."""
        self._requested_port = port
        self._requested_tls_port = tls_port
        self._tls_certificate = tls_certificate
        self._allowed_hosts = tuple(allowed_hosts)
        self._data_dir = data_dir
        self._profile = resolve_profile(profile)
        self._behaviour = Behaviour(
            content_length=content_length,
            shuffle_listing=shuffle_listing,
            file_in_the_way=file_in_the_way,
            archive_visible_on_mount=archive_visible_on_mount,
        )
        self._cleanup = ExitStack()
        self._running: _Running | None = None
        self._mount_lock = threading.Lock()

    def start(self) -> None:
        """Start the server, and wait until it answers requests.

        Raises:
            PortInUseError: a port is in use; nothing is left behind.
            OSError: the host is not this machine's, or the data directory is in use.
            RuntimeError: the server is running already.
        """
        if self._running:
            raise RuntimeError("the server is running already")
        with ExitStack() as cleanup:
            self._running = self._launch(cleanup)
            self._cleanup = cleanup.pop_all()

    def stop(self) -> None:
        """Stop the server and remove temporary files; do nothing if it is not running."""
        if self._running:
            self._cleanup.close()
            self._running = None

    @property
    def port(self) -> int:
        """Port of the HTTP listener."""
        return self._state.port

    @property
    def tls_port(self) -> int:
        """Port of the HTTPS listener.

        Raises:
            RuntimeError: there is no HTTPS listener.
        """
        if self._state.tls_port is None:
            raise RuntimeError(_NO_TLS)
        return self._state.tls_port

    @property
    def url(self) -> str:
        """URL of the HTTP listener, without a slash at the end."""
        return f"http://{self._authority(self.port)}"

    @property
    def tls_url(self) -> str:
        """URL of the HTTPS listener, without a slash at the end."""
        return f"https://{self._authority(self.tls_port)}"

    def uri(self, bucket: str | None = None, path: str = "") -> str:
        """Return the URI of a bucket, or of a path in it, for access over HTTP."""
        return f"exa+bfs://{self._authority(self.port)}{self._location(bucket, path)}"

    def tls_uri(self, bucket: str | None = None, path: str = "") -> str:
        """Return the URI of a bucket, or of a path in it, for access over HTTPS."""
        return f"exa+bfss://{self._authority(self.tls_port)}{self._location(bucket, path)}"

    @property
    def certificate_file(self) -> Path:
        """PEM file with the certificate of the HTTPS listener, which a client must trust."""
        return self._certificate.file

    @property
    def certificate_fingerprint(self) -> str:
        """SHA-256 fingerprint of the certificate, lower-case hexadecimal."""
        return self._certificate.fingerprint

    @property
    def mount_root(self) -> Path:
        """Directory with ``<service>/<bucket>/<key>``, the layout of ``/buckets`` in a UDF.

        It is created on first access, and updated from then on. Its files are read-only hard links
        to the stored ones. Only root can write to one, and must not, because that changes the
        object.
        """
        self._mount()
        return self._state.mount_root

    @property
    def mount_paused(self) -> bool:
        """Whether the mount holds changes back; setting it to False applies them."""
        return self._mount().paused

    @mount_paused.setter
    def mount_paused(self, paused: bool) -> None:
        self._mount().paused = paused

    def sync_mount(self) -> None:
        """Apply all changes to the mount, with archives unpacked, even while it is paused."""
        self._mount().sync()

    def put(self, key: str, data: bytes, bucket: str | None = None) -> None:
        """Store an object without HTTP; ``d/x`` is possible even if ``d`` is an object.

        Raises:
            IllegalNameError: the key is illegal.
            OSError: it cannot be written, for example on a full disk; nothing has changed.
            ValueError: there is no such bucket.
        """
        self.put_many([(key, data)], bucket)

    def put_many(self, items: Iterable[tuple[str, bytes]], bucket: str | None = None) -> None:
        """Store many objects without HTTP, one after the other; see `put`."""
        name, store = self._bucket(bucket), self._state.store
        for key, data in items:
            check_key(key)
            upload = store.upload()
            try:
                upload.add(data)
                upload.publish(name, key)
            finally:
                upload.discard()

    def read(self, key: str, bucket: str | None = None) -> bytes:
        """Return the bytes of an object, without HTTP.

        Raises:
            FileNotFoundError: there is no such key.
            ValueError: there is no such bucket.
        """
        opened = self._state.store.open(self._bucket(bucket), key)
        if opened is None:
            raise FileNotFoundError(f"no key {key!r} in the bucket {self._bucket(bucket)!r}")
        with opened[0] as file:
            return file.readall()

    def keys(self, bucket: str | None = None) -> list[str]:
        """Return all keys of a bucket, sorted, without HTTP."""
        return sorted(self._state.store.keys(self._bucket(bucket)))

    def delete(self, key: str, bucket: str | None = None) -> None:
        """Remove an object without HTTP and without locking its key; ignore a missing key.

        Raises:
            IllegalNameError: the key is illegal.
            ValueError: there is no such bucket.
        """
        check_key(key)
        self._state.store.delete(self._bucket(bucket), key)

    def clear(self) -> None:
        """Remove all objects of all buckets."""
        self._state.store.clear()

    def inject(self, *faults: Fault) -> None:
        """Inject these faults into the next requests that match, in this order."""
        for fault in faults:
            self.faults.add(fault)

    def reset(self) -> None:
        """Reset to the state after the start: no objects, requests, faults or locks."""
        self.faults.clear()
        state = self._state
        state.store.clear()
        state.app.forget_locks()
        if state.mount:
            state.mount.paused = False
            state.mount.sync()
        self.requests.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _state(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the server is not running: use it in a `with` block, or start() it")
        return self._running

    @property
    def _certificate(self) -> Certificate:
        if self._state.certificate is None:
            raise RuntimeError(_NO_TLS)
        return self._state.certificate

    def _launch(self, cleanup: ExitStack) -> _Running:
        """Start the server; add callbacks to ``cleanup`` that stop it and remove its files."""
        plain = cleanup.enter_context(bind(self.host, self._requested_port))
        listeners = [Listener(plain, None)]
        encrypted: socket.socket | None = None
        if self._requested_tls_port is not None:
            encrypted = cleanup.enter_context(bind(self.host, self._requested_tls_port))
        directory = self._make_directory(cleanup)
        # before the certificate: it refuses a directory in use
        store = Store(directory, persistent=self._data_dir is not None)
        cleanup.callback(store.close)
        tls_port: int | None = None
        certificate: Certificate | None = None
        if encrypted is not None:
            tls_port = encrypted.getsockname()[1]
            name = self._tls_certificate
            certificate = load_certificate(name, directory) or generate_certificate(name, directory)
            listeners.append(Listener(encrypted, certificate.server_context()))
        for leftover in ("mount", "staging"):  # an earlier server's links, which keep deleted bytes
            shutil.rmtree(directory / leftover, ignore_errors=True)
        app = BucketFSApp(
            store,
            self.buckets,
            host_names=HostNames(
                self.host, self._tls_certificate if certificate else None, self._allowed_hosts
            ),
            profile=self._profile,
            behaviour=self._behaviour,
            faults=self.faults,
            log=self.requests,
        )
        running = _Running(plain.getsockname()[1], tls_port, certificate, directory, store, app)
        cleanup.callback(running.close_mount)
        thread = ServerThread(app, listeners, self.requests.connected)
        cleanup.callback(thread.stop)
        thread.start()
        return running

    def _make_directory(self, cleanup: ExitStack) -> Path:
        if self._data_dir is None:
            directory = Path(tempfile.mkdtemp(prefix="bucketfs-"))
            cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        else:
            directory = Path(self._data_dir).absolute()
            directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _mount(self) -> Mount:
        """Return the mount; the first call creates it, because it makes every PUT slower."""
        state = self._state
        with self._mount_lock:
            if state.mount is None:
                state.mount = Mount(
                    state.store,
                    state.mount_root / self.service,
                    state.directory / "staging",
                    buckets=tuple(bucket.name for bucket in self.buckets),
                    archive_visible=self._behaviour.archive_visible_on_mount,
                )
            return state.mount

    def _authority(self, port: int) -> str:
        # a server that listens on all addresses is reached on loopback
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _location(self, bucket: str | None, path: str) -> str:
        location = f"/{self.service}/{self._bucket(bucket)}"
        return f"{location}/{path}" if path else location

    def _bucket(self, name: str | None) -> str:
        names = [bucket.name for bucket in self.buckets]
        if name is not None and name not in names:
            raise ValueError(f"no bucket {name!r}: this server has {', '.join(names)}")
        return name or names[0]


@dataclass
class _Running:
    """The state of a running server."""

    port: int
    tls_port: int | None
    certificate: Certificate | None
    directory: Path
    store: Store
    app: BucketFSApp
    mount: Mount | None = None

    @property
    def mount_root(self) -> Path:
        """Directory of the mount, which may not exist yet."""
        return self.directory / "mount"

    def close_mount(self) -> None:
        """Close the mount, if it was created."""
        if self.mount:
            self.mount.close()
