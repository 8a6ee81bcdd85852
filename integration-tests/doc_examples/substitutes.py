"""Replace hosts, ports, certificates and passwords of the pages by those of the test.

============================================  ==================================================
on the page                                   in the test
============================================  ==================================================
``db.example.com:2581``, ``:2580``            an embedded BucketFS with a certificate as Exasol's
``AB:CD:…``                                   the fingerprint of this certificate
``/exa/etc/ssl/ssl.crt``                      the file of this certificate
``EXA_BUCKETFS_PASSWORD='…'`` (in quotes)     its write password; its read password if the quotes
                                              contain the word *read*
``localhost:2580``, ``:2581``                 the same BucketFS, or the one that the page starts
``localhost:5000``, ``mlflow.example.com``    an MLflow server, or the one that the page starts
any other port of a server that it starts     a free one
============================================  ==================================================
"""

from __future__ import annotations

import random
import re
import socket
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_bucketfs_testing import BucketFSServer, MlflowServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack

HTTP, TLS, MLFLOW = 2580, 2581, 5000
"""The ports of the documentation."""

# Not the pages' own name of loopback, so that `documented` can reverse the replacement.
_DATABASE = "127.0.0.1"
_DATABASE_NAME = re.compile(r"(?P<scheme>[\w+]+://)?\bdb\.example\.com\b(?::(?P<port>\d+))?")
_LOCAL_NAME = re.compile(r"\b(?P<host>localhost|127\.0\.0\.1|mlflow\.example\.com):(?P<port>\d+)\b")
_PORT_OPTION = re.compile(r"(?P<option>--(?:tls-)?port)(?P<between>[ =])(?P<port>\d+)\b")
_FINGERPRINT = re.compile(r"\bAB:CD:(?:[0-9A-F:]*)…")
_CERTIFICATE = "/exa/etc/ssl/ssl.crt"
_PASSWORD = re.compile(r"""(?P<name>EXA_BUCKETFS_PASSWORD=)(?:'(?P<text>[^'\n]*)'|"[^"$\n]*")""")
_SERVE = re.compile(r"(?m)^(?P<command>[^#\n]*mlflow-bucketfs-testing serve)\b(?!.*--port)")
_MLFLOW_SERVER = re.compile(r"(?m)^[^#\n]*\bmlflow server\b")


class Services:
    """The servers that a page does not start: BucketFS, and MLflow once its port is needed.

    Args:
        cleanup: ends the servers.

    Attributes:
        http_port: port of BucketFS over HTTP.
        tls_port: port of BucketFS over HTTPS.
        fingerprint: SHA-256 fingerprint of its certificate, ``AB:CD:…``.
        certificate_file: file of its certificate.
    """

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self._bucketfs = cleanup.enter_context(BucketFSServer(tls_port=0))
        self.http_port = self._bucketfs.port
        self.tls_port = self._bucketfs.tls_port
        self.certificate_file = self._bucketfs.certificate_file
        digits = self._bucketfs.certificate_fingerprint.upper()
        self.fingerprint = ":".join(digits[n : n + 2] for n in range(0, len(digits), 2))

    @cached_property
    def mlflow_port(self) -> int:
        """Port of an MLflow server with artifacts in this BucketFS; the first access starts it."""
        server = MlflowServerProcess(
            default_artifact_root=self._bucketfs.uri(path="mlflow"),
            env={"EXA_BUCKETFS_USER": "w", "EXA_BUCKETFS_PASSWORD": "write"},
        )
        return urlsplit(self._cleanup.enter_context(server).uri).port or 0


class Substitutes:
    """The substitutes of one page, the same for all its blocks.

    Args:
        services: the servers that the page does not start.
        commands: the blocks of the page that run until they are stopped.
    """

    def __init__(self, services: Services, commands: Iterable[str]) -> None:
        self._services = services
        self._own: dict[int, int] = {}
        for command in commands:
            for port in documented_ports(command):
                self._own.setdefault(port, free_port())

    def actual(self, text: str) -> str:
        """Return the text to run for a text of the page."""
        text = _SERVE.sub(rf"\g<command> --port {HTTP}", text)
        text = _FINGERPRINT.sub(lambda _: self._services.fingerprint, text)
        text = text.replace(_CERTIFICATE, str(self._services.certificate_file))
        text = _PASSWORD.sub(_password, text)
        text = _LOCAL_NAME.sub(self._local, text)
        text = _PORT_OPTION.sub(
            lambda m: f"{m['option']}{m['between']}{self._port(int(m['port']))}", text
        )
        return _DATABASE_NAME.sub(self._database, text)

    def documented(self, text: str) -> str:
        """Return the text that the page would show for a printed text."""
        services = self._services
        text = text.replace(services.fingerprint, "AB:CD:…")
        text = text.replace(str(services.certificate_file), _CERTIFICATE)
        for port, actual in ((HTTP, services.http_port), (TLS, services.tls_port)):
            text = text.replace(f"{_DATABASE}:{actual}", f"db.example.com:{port}")
        for port, actual in self._own.items():
            text = re.sub(rf":{actual}\b", f":{port}", text)
        return text

    def ports_of(self, command: str) -> list[int]:
        """Return the ports that a command of the page opens in the test."""
        return [self._own[port] for port in documented_ports(command)]

    def _port(self, documented: int) -> int:
        if documented in self._own:
            return self._own[documented]
        if documented == MLFLOW:
            return self._services.mlflow_port
        shared = {HTTP: self._services.http_port, TLS: self._services.tls_port}
        return shared.get(documented, documented)

    def _local(self, match: re.Match[str]) -> str:
        host = "localhost" if match["host"] == "mlflow.example.com" else match["host"]
        return f"{host}:{self._port(int(match['port']))}"

    def _database(self, match: re.Match[str]) -> str:
        scheme = match["scheme"] or ""
        plain = scheme in {"http://", "exa+bfs://", "exabfs://"}
        port = int(match["port"] or (HTTP if plain else TLS))
        ports = {HTTP: self._services.http_port, TLS: self._services.tls_port}
        if port not in ports:  # SQL, for example, which needs an Exasol: the page marks it
            return match[0]
        return f"{scheme}{_DATABASE}:{ports[port]}"


def documented_ports(command: str) -> list[int]:
    """Return the ports on the page of a command that runs until it is stopped."""
    ports = [int(match["port"]) for match in _PORT_OPTION.finditer(command)]
    if _SERVE.search(command):
        ports.append(HTTP)
    if _MLFLOW_SERVER.search(command) and "--port" not in command:
        ports.append(MLFLOW)
    return ports


def _password(match: re.Match[str]) -> str:
    if "wrong" in match[0]:
        return match[0]
    return match["name"] + ("read" if re.search(r"\bread\b", match[0]) else "write")


def free_port() -> int:
    """Return a free port of loopback, for a server that starts soon.

    It is below the range from which Linux selects ports (``ip_local_port_range``): another
    connection could take one of these before the server starts.
    """
    while True:
        port = random.randrange(20_000, 32_768)  # noqa: S311 -- not a secret
        with suppress(OSError), socket.create_server(("localhost", port)):
            return port
