"""A connection to Exasol: its address, its credentials, its statements, its errors."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)
from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.settings import Variables, parse_boolean
from mlflow_bucketfs_core.uri import is_host_name

from mlflow_bucketfs_plugin.scoring.names import parse_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

DEFAULT_PORT = 8563
EXAMPLE_TARGET = "exasol://db.example.com:8563/ML"
_MAX_PORT = 65535
_SECRETS = ("EXA_PASSWORD", "EXA_ACCESS_TOKEN", "EXA_REFRESH_TOKEN")

# Exasol's SQL state for a missing privilege
_INSUFFICIENT_PRIVILEGES = "42500"

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
            MlflowException: the URI names something else, INVALID_PARAMETER_VALUE.
        """
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
        except ValueError:
            raise _invalid(f"The port of the target is not a number up to {_MAX_PORT}.") from None
        if parts.username is not None or parts.password is not None:
            # not repeated: it may hold a password
            raise _invalid("The target must not name a user: set EXA_USER and EXA_PASSWORD.")
        if parts.query or parts.fragment:
            raise _invalid("The target must not have a query or a fragment.")
        if not host or not is_host_name(host) or ":" in host or port == 0:
            raise _invalid(
                "The target does not name a host. An IPv6 address cannot be used: pyexasol "
                "connects by name or IPv4 address."
            )
        name = unquote(parts.path.strip("/"))
        if not name:
            raise _invalid("The target does not name a schema.")
        try:
            schema = parse_identifier(name, "the schema of the target")
        except ValueError as error:
            raise _invalid(str(error)) from None
        return cls(host, port, schema)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Credentials:
    """How to log in, and which certificate to accept.

    Attributes:
        user: name of the database user.
        password: never part of ``repr``; None with a token.
        access_token: OpenID token; never part of ``repr``.
        refresh_token: OpenID token; never part of ``repr``.
        verify_tls: whether the server's certificate is verified.
        trusted_ca: file or directory with the certificates to trust; None for the system's.
        fingerprint: SHA-256 of the one certificate to accept, in hexadecimal; None for any that
            ``trusted_ca`` vouches for.
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
        """Read them from the variables that Exasol's own tools use.

        ``EXA_USER`` with ``EXA_PASSWORD``, ``EXA_ACCESS_TOKEN`` or ``EXA_REFRESH_TOKEN``;
        ``EXA_SSL_CERT_VALIDATION`` and ``EXA_SSL_TRUSTED_CA``. ``EXA_DSN`` is where these
        credentials belong to: if it is set, it has to name the target's host and port. A
        fingerprint in it (``host/FINGERPRINT:port``) is the certificate to accept.

        Args:
            target: where they are sent to.
            environ: the variables; ``os.environ`` if None.

        Raises:
            MlflowException: a variable is missing or cannot be used, INVALID_PARAMETER_VALUE or
                UNAUTHENTICATED.
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
                raise _invalid(str(error), example=False) from None
        trusted_ca = env.get("EXA_SSL_TRUSTED_CA").strip() or None
        if trusted_ca and not Path(trusted_ca).exists():
            raise _invalid(
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
        return cls(
            user,
            password=env.get("EXA_PASSWORD") or None,
            access_token=env.get("EXA_ACCESS_TOKEN") or None,
            refresh_token=env.get("EXA_REFRESH_TOKEN") or None,
            verify_tls=verify,
            trusted_ca=trusted_ca,
            fingerprint=fingerprint if verify else None,
        )


class Database:
    """A session in a schema's database, in one transaction; a context manager.

    Whatever is not committed when it is closed, or when the connection breaks, did not happen:
    in Exasol that includes ``CREATE`` and ``DROP``.

    Args:
        target: where to connect.
        environ: environment variables, see :meth:`Credentials.from_env`.

    Raises:
        MlflowException: pyexasol is not installed; the server cannot be reached, its certificate
            is not trusted, or the login is refused.
    """

    def __init__(self, target: Target, environ: Mapping[str, str] | None = None) -> None:
        try:
            import pyexasol  # noqa: PLC0415 -- an extra, and MLflow loads this without it
        except ImportError as error:
            raise MlflowException(
                "The target exasol needs pyexasol: pip install 'mlflow-bucketfs-plugin[sql]'",
                error_code=INVALID_PARAMETER_VALUE,
            ) from error
        self.target = target
        self._errors: Any = pyexasol.exceptions
        credentials = Credentials.from_env(target, environ)
        options = _certificate_options(credentials)
        host = target.host
        if credentials.fingerprint:
            host = f"{host}/{credentials.fingerprint}"
        try:
            self._connection: Any = pyexasol.connect(
                dsn=f"{host}:{target.port}",
                user=credentials.user,
                password=credentials.password,
                access_token=credentials.access_token,
                refresh_token=credentials.refresh_token,
                autocommit=False,
                # else the certificate is compared with whichever name the address has
                resolve_hostnames=False,
                websocket_sslopt=options,
                client_name="mlflow-bucketfs",
                verbose_error=False,
            )
        except (self._errors.ExaError, OSError) as error:
            refused = getattr(error, "connection", None)
            if refused is not None:
                with suppress(AttributeError, OSError):  # it may never have been open
                    refused.close(disconnect=False)
            raise self._login_error(error, credentials) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; what was not committed is rolled back."""
        try:
            self._connection.close()
        except (self._errors.ExaError, OSError):  # the connection is gone, and the session with it
            self._connection.close(disconnect=False)

    def execute(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """Execute a statement.

        Args:
            statement: SQL; ``{name}`` stands for a value, written as a literal by pyexasol.
            values: the values.

        Returns:
            The rows of a query, else none.

        Raises:
            MlflowException: the database refused it, or the connection was lost.
        """
        return self.query(statement, **values)[1]

    def query(
        self, statement: str, **values: object
    ) -> tuple[dict[str, dict[str, Any]], list[tuple[Any, ...]]]:
        """Execute a query, and return the types of its columns by name, and its rows.

        Raises:
            MlflowException: see :meth:`execute`.
        """
        try:
            # pyexasol would look for placeholders in a script's braces
            result = self._connection.execute(statement, values or None)
            if result.result_type != "resultSet":
                return {}, []
            return result.columns(), result.fetchall()
        except (self._errors.ExaError, OSError) as error:
            raise self._statement_error(error, statement) from None

    def commit(self) -> None:
        """Keep what was done.

        Raises:
            MlflowException: see :meth:`execute`; if the connection was lost, nobody knows whether
                it was kept, and the message says so.
        """
        try:
            self._connection.commit()
        except (self._errors.ExaError, OSError) as error:
            if isinstance(error, self._errors.ExaRequestError):
                raise self._statement_error(error, "COMMIT") from None
            raise MlflowException(
                f"The connection to Exasol at {self.target.address} was lost while the changes "
                "were committed: whether they were kept is not known. "
                f"`mlflow deployments list -t exasol://{self.target.address}/"
                f"{self.target.schema}` shows what is there.",
                error_code=TEMPORARILY_UNAVAILABLE,
            ) from None

    def _login_error(self, error: Exception, credentials: Credentials) -> MlflowException:
        address = self.target.address
        if isinstance(error, self._errors.ExaRequestError):
            return MlflowException(
                f"Exasol at {address} refused the login of {credentials.user!r}: "
                f"{_first_line(error)}. EXA_USER and EXA_PASSWORD (or EXA_ACCESS_TOKEN) decide "
                "who logs in.",
                error_code=UNAUTHENTICATED,
            )
        reason = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason or "fingerprint" in reason.lower():
            return _invalid(
                f"The certificate of Exasol at {address} is not trusted: {reason}. Compare its "
                "fingerprint on the server (openssl x509 -in /exa/etc/ssl/ssl.crt -noout "
                f"-fingerprint -sha256) and set EXA_DSN={self.target.host}/FINGERPRINT:"
                f"{self.target.port} (64 digits, without colons), or name the authority that "
                "signed it in EXA_SSL_TRUSTED_CA.",
                example=False,
            )
        return MlflowException(
            f"Exasol at {address} cannot be reached: {reason}. Check the host and the port of the "
            "target, and whether a firewall is in the way.",
            error_code=TEMPORARILY_UNAVAILABLE,
        )

    def _statement_error(self, error: Exception, statement: str) -> MlflowException:
        what = " ".join(statement.split(maxsplit=5)[:5])
        if not isinstance(error, self._errors.ExaRequestError):
            return MlflowException(
                f"The connection to Exasol at {self.target.address} was lost during `{what} …`: "
                f"{_reason(error)}. Nothing was changed.",
                error_code=TEMPORARILY_UNAVAILABLE,
            )
        if error.code == _INSUFFICIENT_PRIVILEGES:
            return MlflowException(
                f"The database user lacks a privilege for `{what} …`: {_first_line(error)}",
                error_code=PERMISSION_DENIED,
            )
        return MlflowException(
            f"Exasol refused `{what} …`: {_first_line(error)} (SQL state {error.code})",
            error_code=INTERNAL_ERROR,
        )


def _invalid(reason: str, *, example: bool = True) -> MlflowException:
    shape = f" A target looks like {EXAMPLE_TARGET}." if example else ""
    return MlflowException(f"{reason}{shape}", error_code=INVALID_PARAMETER_VALUE)


def _certificate_options(credentials: Credentials) -> dict[str, Any] | None:
    if credentials.fingerprint:
        return None  # pyexasol compares it before it logs in
    if not credentials.verify_tls:
        return {"cert_reqs": ssl.CERT_NONE}
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED}
    if credentials.trusted_ca:
        kind = "ca_cert_path" if Path(credentials.trusted_ca).is_dir() else "ca_certs"
        options[kind] = credentials.trusted_ca
    return options


def _fingerprint_for(target: Target, dsn: str) -> str | None:
    """Return the fingerprint that a connection string has for the target's host.

    Raises:
        MlflowException: it does not name the target's host and port.
    """
    if not dsn:
        return None
    port, fingerprint = DEFAULT_PORT, None
    # as pyexasol reads it: a port and a fingerprint hold for the hosts before them, too
    for part in reversed(dsn.split(",")):
        match = _DSN_PART.fullmatch(part.strip())
        if match is None:
            raise _invalid(
                "EXA_DSN cannot be used: it takes host[/FINGERPRINT][:port], the fingerprint with "
                "64 digits.",
                example=False,
            )
        port = int(match["port"] or port)
        fingerprint = (match["fingerprint"] or fingerprint or "").lower() or None
        if port == target.port and target.host in map(str.lower, _hosts(match)):
            return fingerprint
    raise _invalid(
        f"EXA_DSN does not name {target.address}, so the password in the environment may belong to "
        "another database, and is not sent there. Correct EXA_DSN, or unset it.",
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


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().rstrip(".")


def _first_line(error: Any) -> str:
    text = str(error.message).strip()
    return text.splitlines()[0].rstrip(".") if text else "no reason was given"
