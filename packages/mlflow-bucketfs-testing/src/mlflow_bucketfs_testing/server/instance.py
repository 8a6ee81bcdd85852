"""What exists only between the start and the stop of a `BucketFSServer`."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_bucketfs_testing.server.app import BucketFSApp
from mlflow_bucketfs_testing.server.auth import HostNames
from mlflow_bucketfs_testing.server.mount import Mount
from mlflow_bucketfs_testing.server.runner import Listener, ServerThread, bind
from mlflow_bucketfs_testing.server.storage import Store
from mlflow_bucketfs_testing.server.tls import Certificate, generate_certificate

if TYPE_CHECKING:
    import os
    from contextlib import ExitStack

    from mlflow_bucketfs_testing.server.auth import BucketConfig
    from mlflow_bucketfs_testing.server.faults import FaultList
    from mlflow_bucketfs_testing.server.profiles import Behaviour, Profile
    from mlflow_bucketfs_testing.server.request_log import RequestLog


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that is decided before the start; `BucketFSServer` documents each."""

    buckets: tuple[BucketConfig, ...]
    service: str
    host: str
    port: int
    tls_port: int | None
    tls_certificate: str
    allowed_hosts: tuple[str, ...]
    data_dir: str | os.PathLike[str] | None
    profile: Profile
    behaviour: Behaviour


class Instance:
    """A running server: sockets, objects, thread and, once asked for, the mount.

    Args:
        options: What to run.
        faults: Faults to take from.
        log: Log to write to.
        cleanup: Gets what stops the server and removes what is temporary.

    Raises:
        PortInUseError: A port is taken.
        OSError: The host is not this machine's, or the data directory is in use.
        ValueError: No certificate has the name asked for.
    """

    def __init__(
        self, options: Options, faults: FaultList, log: RequestLog, cleanup: ExitStack
    ) -> None:
        self._options = options
        self._mount: Mount | None = None
        self._mount_lock = threading.Lock()
        plain = cleanup.enter_context(bind(options.host, options.port))
        self.port: int = plain.getsockname()[1]
        listeners = [Listener(plain, None)]
        self.directory = _directory(options, cleanup)
        self.certificate: Certificate | None = None
        self.tls_port: int | None = None
        if options.tls_port is not None:
            encrypted = cleanup.enter_context(bind(options.host, options.tls_port))
            self.tls_port = encrypted.getsockname()[1]
            self.certificate = generate_certificate(options.tls_certificate, self.directory)
            listeners.append(Listener(encrypted, self.certificate.server_context()))
        self.store = Store(self.directory, persistent=options.data_dir is not None)
        cleanup.callback(self.store.close)
        cleanup.callback(self._close_mount)
        self.app = BucketFSApp(
            self.store,
            options.buckets,
            host_names=HostNames(
                options.host,
                None if options.tls_port is None else options.tls_certificate,
                options.allowed_hosts,
            ),
            profile=options.profile,
            behaviour=options.behaviour,
            faults=faults,
            log=log,
        )
        thread = ServerThread(self.app, listeners, log.connected)
        cleanup.callback(thread.stop)
        thread.start()

    @property
    def mount_root(self) -> Path:
        """Where the mount is, or will be."""
        return self.directory / "mount"

    def mount(self) -> Mount:
        """The mount, built by the first call: most tests can do without its cost per PUT."""
        with self._mount_lock:
            if self._mount is None:
                self._mount = Mount(
                    self.store,
                    self.mount_root / self._options.service,
                    self.directory / "staging",
                    buckets=tuple(bucket.name for bucket in self._options.buckets),
                    archive_visible=self._options.behaviour.archive_visible_on_mount,
                )
            return self._mount

    def reset(self) -> None:
        """Remove all objects and locks; a mount is empty and not paused afterwards."""
        self.store.clear()
        self.app.forget_locks()
        if self._mount:
            self._mount.paused = False
            self._mount.sync()

    def _close_mount(self) -> None:
        if self._mount:
            self._mount.close()


def _directory(options: Options, cleanup: ExitStack) -> Path:
    if options.data_dir is None:
        directory = Path(tempfile.mkdtemp(prefix="bucketfs-"))
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
    else:
        directory = Path(options.data_dir).absolute()
        directory.mkdir(parents=True, exist_ok=True)
    return directory
