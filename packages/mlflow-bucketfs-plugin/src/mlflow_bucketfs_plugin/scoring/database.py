"""A session in Exasol, and MLflow's errors for its failures."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)

from mlflow_bucketfs_plugin.scoring.target import Credentials, invalid_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from mlflow_bucketfs_plugin.scoring.target import Target

# Exasol's SQL state for a missing privilege
_INSUFFICIENT_PRIVILEGES = "42500"


class Database:
    """A database session with one open transaction; a context manager.

    Changes are rolled back if the session ends without a commit: in Exasol, ``CREATE`` and
    ``DROP`` too.

    Args:
        target: the database, and the schema of the deployments.
        environ: environment variables, see :meth:`Credentials.from_env`.

    Raises:
        MlflowException: pyexasol is not installed; the server cannot be reached, its certificate
            is not trusted, or the login is refused.
    """

    def __init__(self, target: Target, environ: Mapping[str, str] | None = None) -> None:
        pyexasol = import_pyexasol()
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
                # else pyexasol compares the certificate with the canonical name from DNS
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
        """End the session, and roll back uncommitted changes."""
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
            The rows of a query; no rows for other statements.

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
            # with an empty dictionary, pyexasol would parse a script's braces as placeholders
            result = self._connection.execute(statement, values or None)
            if result.result_type != "resultSet":
                return {}, []
            return result.columns(), result.fetchall()
        except (self._errors.ExaError, OSError) as error:
            raise self._statement_error(error, statement) from None

    def commit(self) -> None:
        """Commit the transaction.

        Raises:
            MlflowException: see :meth:`execute`. If the connection was lost, it is not known
                whether the changes were committed.
        """
        try:
            self._connection.commit()
        except (self._errors.ExaError, OSError) as error:
            if isinstance(error, self._errors.ExaRequestError):
                raise self._statement_error(error, "COMMIT") from None
            raise MlflowException(
                f"The connection to Exasol at {self.target.address} was lost during COMMIT: it is "
                "not known whether the changes were committed. Check with "
                f"`mlflow deployments list -t exasol://{self.target.address}/"
                f"{self.target.schema}`.",
                error_code=TEMPORARILY_UNAVAILABLE,
            ) from None

    def _login_error(self, error: Exception, credentials: Credentials) -> MlflowException:
        address = self.target.address
        if isinstance(error, self._errors.ExaRequestError):
            return MlflowException(
                f"Exasol at {address} refused the login of {credentials.user!r}: "
                f"{_first_line(error)}. Check EXA_USER and EXA_PASSWORD (or EXA_ACCESS_TOKEN).",
                error_code=UNAUTHENTICATED,
            )
        reason = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason or "fingerprint" in reason.lower():
            return invalid_error(
                f"The certificate of Exasol at {address} is not trusted: {reason}. Compare its "
                "fingerprint on the server (openssl x509 -in /exa/etc/ssl/ssl.crt -noout "
                f"-fingerprint -sha256) and set EXA_DSN={self.target.host}/FINGERPRINT:"
                f"{self.target.port} (64 digits, without colons), or set EXA_SSL_TRUSTED_CA to the "
                "certificate of the authority that signed it.",
                example=False,
            )
        return MlflowException(
            f"Exasol at {address} cannot be reached: {reason}. Check the host and the port of the "
            "target, and whether a firewall blocks the connection.",
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
                f"The database user has no privilege for `{what} …`: {_first_line(error)}",
                error_code=PERMISSION_DENIED,
            )
        return MlflowException(
            f"Exasol refused `{what} …`: {_first_line(error)} (SQL state {error.code})",
            error_code=INTERNAL_ERROR,
        )


def import_pyexasol() -> Any:
    """Return the module ``pyexasol``, which the extra ``[sql]`` installs.

    Raises:
        MlflowException: it is not installed.
    """
    try:
        import pyexasol  # noqa: PLC0415 -- an extra, and MLflow loads this without it
    except ImportError as error:
        raise MlflowException(
            "The target exasol needs pyexasol: pip install 'mlflow-bucketfs-plugin[sql]'",
            error_code=INVALID_PARAMETER_VALUE,
        ) from error
    return pyexasol


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


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().rstrip(".")


def _first_line(error: Any) -> str:
    text = str(error.message).strip()
    return text.splitlines()[0].rstrip(".") if text else "no reason was given"
