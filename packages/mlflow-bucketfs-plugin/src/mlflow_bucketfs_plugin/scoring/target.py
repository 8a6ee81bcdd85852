"""The schema that models are deployed to, and the credentials for its database."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, UNAUTHENTICATED
from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.settings import Variables, parse_boolean
from mlflow_bucketfs_core.uri import is_host_name

from mlflow_bucketfs_plugin.scoring.names import parse_identifier, sql_object_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_PORT = 8563
EXAMPLE_TARGET = "exasol://db.example.com:8563/ML"
_MAX_PORT = 65535
_SECRETS = ("EXA_PASSWORD", "EXA_ACCESS_TOKEN", "EXA_REFRESH_TOKEN")

# One part of a connection string: hosts, a fingerprint, a port; see pyexasol's documentation
_DSN_PART = re.compile(
    r"(?P<prefix>[^:/,]+?)(?:(?P<first>\d+)\.\.(?P<last>\d+)(?P<suffix>[^:/,]*))?"
    r"(?:/(?P<fingerprint>[0-9A-Fa-f]{64}|nocertcheck))?(?::(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)
_MOST_NODES = 1000


@dataclass(frozen=True)
class Target:
    """A schema of a database.

    Attributes:
        host: name or IPv4 address.
        port: TCP port.
        schema: name as the database stores it.
    """

    host: str
    port: int
    schema: str

    @classmethod
    def parse(cls, uri: str) -> Target:
        """Parse ``exasol://host[:port]/SCHEMA``.

        As in SQL, a schema without quotation marks is stored in upper case.

        Raises:
            MlflowException: the URI is malformed (INVALID_PARAMETER_VALUE).
        """
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
        except ValueError:
            raise invalid_error(
                f"The port of the target is not a number up to {_MAX_PORT}."
            ) from None
        if parts.username is not None or parts.password is not None:
            # the URI is not in the message, because it may contain a password
            raise invalid_error("The target must not name a user: set EXA_USER and EXA_PASSWORD.")
        if parts.query or parts.fragment:
            raise invalid_error("The target must not have a query or a fragment.")
        if not host or not is_host_name(host) or ":" in host or port == 0:
            raise invalid_error(
                "The target does not name a host. An IPv6 address cannot be used: pyexasol "
                "connects by name or IPv4 address."
            )
        name = unquote(parts.path.strip("/"))
        if not name:
            raise invalid_error("The target does not name a schema.")
        try:
            schema = parse_identifier(name, "the schema of the target")
        except ValueError as error:
            raise invalid_error(str(error)) from None
        return cls(host, port, schema)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    def qualified(self, name: str) -> str:
        """Return the name of an object in the schema as SQL."""
        return sql_object_name((self.schema, name))


@dataclass(frozen=True)
class Credentials:
    """The credentials of a database user, and the certificate to accept.

    Attributes:
        user: name of the database user.
        password: never part of ``repr``; None with a token.
        access_token: OpenID token; never part of ``repr``.
        refresh_token: OpenID token; never part of ``repr``.
        verify_tls: whether the server's certificate is verified.
        trusted_ca: file or directory with the certificates to trust; None for the system's.
        fingerprint: SHA-256 of the only certificate to accept, in hexadecimal; None for any that
            ``trusted_ca`` verifies.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    verify_tls: bool = True
    trusted_ca: str | None = None
    fingerprint: str | None = None

    @classmethod
    def from_env(cls, target: Target, environ: Mapping[str, str] | None = None) -> Credentials:
        """Read the credentials from the environment variables of Exasol's own tools.

        ``EXA_USER`` with ``EXA_PASSWORD``, ``EXA_ACCESS_TOKEN`` or ``EXA_REFRESH_TOKEN``;
        ``EXA_SSL_CERT_VALIDATION`` and ``EXA_SSL_TRUSTED_CA``. If ``EXA_DSN`` is set, it must name
        the target's host and port, so that credentials are not sent to another database. A
        fingerprint in it (``host/FINGERPRINT:port``) is that of the certificate to accept.

        Args:
            target: the database to which they are sent.
            environ: the variables; ``os.environ`` if None.

        Raises:
            MlflowException: a variable is missing or invalid (INVALID_PARAMETER_VALUE or
                UNAUTHENTICATED).
        """
        # No local variable here may show a password: pytest prints them with `-l`.
        env = Variables(os.environ if environ is None else environ)
        del environ
        fingerprint = _fingerprint_for(target, env.get("EXA_DSN").strip())
        verify = True
        if env.get("EXA_SSL_CERT_VALIDATION").strip():
            try:
                verify = env.converted("EXA_SSL_CERT_VALIDATION", parse_boolean)
            except ConfigurationError as error:
                raise invalid_error(str(error), example=False) from None
        trusted_ca = env.get("EXA_SSL_TRUSTED_CA").strip() or None
        if trusted_ca and not Path(trusted_ca).exists():
            raise invalid_error(
                f"EXA_SSL_TRUSTED_CA={trusted_ca!r} does not exist: it takes a file or a directory "
                "with the certificates to trust.",
                example=False,
            )
        user = env.get("EXA_USER").strip()
        if not user or not any(map(env.get, _SECRETS)):
            missing = "EXA_PASSWORD (or EXA_ACCESS_TOKEN)" if user else "EXA_USER"
            raise MlflowException(
                f"{missing} is not set: it is needed to log in to Exasol at {target.address}.",
                error_code=UNAUTHENTICATED,
            )
        if fingerprint == "nocertcheck":
            verify, fingerprint = False, None
        elif fingerprint or trusted_ca:  # as for BucketFS: a named one is verified
            verify = True
        return cls(
            user,
            password=env.get("EXA_PASSWORD") or None,
            access_token=env.get("EXA_ACCESS_TOKEN") or None,
            refresh_token=env.get("EXA_REFRESH_TOKEN") or None,
            verify_tls=verify,
            trusted_ca=trusted_ca,
            fingerprint=fingerprint,
        )


def invalid_error(reason: str, *, example: bool = True) -> MlflowException:
    """Return the error for an invalid setting, optionally with an example of a target."""
    shape = f" A target looks like {EXAMPLE_TARGET}." if example else ""
    return MlflowException(f"{reason}{shape}", error_code=INVALID_PARAMETER_VALUE)


def _fingerprint_for(target: Target, dsn: str) -> str | None:
    """Return the fingerprint for the target's host in a connection string, or None.

    Raises:
        MlflowException: the connection string does not name the target's host and port.
    """
    if not dsn:
        return None
    port, fingerprint = DEFAULT_PORT, None
    # as in pyexasol, a port and a fingerprint apply to the hosts before them, too
    for part in reversed(dsn.split(",")):
        match = _DSN_PART.fullmatch(part.strip())
        if match is None:
            raise invalid_error(
                "EXA_DSN is malformed: it takes host[/FINGERPRINT][:port], the fingerprint with "
                "64 hexadecimal digits.",
                example=False,
            )
        port = int(match["port"] or port)
        fingerprint = (match["fingerprint"] or fingerprint or "").lower() or None
        if port == target.port and target.host in map(str.lower, _hosts(match)):
            return fingerprint
    raise invalid_error(
        f"EXA_DSN does not name {target.address}, so the password in the environment may belong to "
        "another database, and was not sent. Correct EXA_DSN, or unset it.",
        example=False,
    )


def _hosts(part: re.Match[str]) -> Iterator[str]:
    if part["first"] is None:
        yield part["prefix"]
        return
    width = len(part["first"])
    first, last = int(part["first"]), int(part["last"])
    for number in range(first, min(last, first + _MOST_NODES) + 1):
        yield f"{part['prefix']}{number:0{width}}{part['suffix'] or ''}"
