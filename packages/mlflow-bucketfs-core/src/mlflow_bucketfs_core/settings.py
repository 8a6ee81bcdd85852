"""Settings from environment variables, validated once and kept as one frozen value."""

from __future__ import annotations

import math
import os
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_core.errors import ConfigurationError
from mlflow_bucketfs_core.hosts import HostRule, parse_host_list
from mlflow_bucketfs_core.uri import is_host_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BOOLEANS = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}
_SHA256_HEX_DIGITS = 64
_DIGITS = re.compile("[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+")
DEFAULT_MOUNT_ROOT = "/buckets"


@dataclass(frozen=True)
class ConnectionSettings:
    """The settings for connections to BucketFS and for its mount.

    Attributes:
        user: ``w`` may read and write, ``r`` only read.
        password: never part of ``repr``; ``None`` if the variable is unset or empty.
        verify_tls: whether certificates are verified.
        ca_bundle: file or directory with the certificates to trust; ``None`` for the system's.
        tls_hostname: name to expect in the certificate instead of the URI's host.
        cert_fingerprint: SHA-256 of the one certificate to accept, 64 lower-case hex digits.
        allowed_hosts: hosts that may receive the password; ``None`` if the list is unset.
        max_workers: files transferred at the same time.
        mount_root: directory under which UDFs see BucketFS.
        mount_root_is_explicit: whether the environment sets ``mount_root``.
        mount_fallback_http: whether files missing in a mounted bucket are read over HTTP.
        mount_hosts: hosts whose buckets are looked up on the mount; ``None`` for all.
        max_retries: retries after the first attempt.
        backoff_factor: seconds, doubled with every attempt (see ``urllib3.util.Retry``).
        backoff_jitter: greatest number of seconds added at random to a wait.
        transfer_timeout_s: seconds without any progress after which a transfer times out;
            ``None`` for the default, which grows with an upload's size; infinity for never.
        client_timeout_s: seconds without a byte after which a tracking server aborts the upload
            of a client; infinity for never.
    """

    user: str = "w"
    password: str | None = field(default=None, repr=False)
    verify_tls: bool = True
    ca_bundle: str | None = None
    tls_hostname: str | None = None
    cert_fingerprint: str | None = None
    allowed_hosts: tuple[HostRule, ...] | None = None
    max_workers: int = 16
    mount_root: str = DEFAULT_MOUNT_ROOT
    mount_root_is_explicit: bool = False
    mount_fallback_http: bool = False
    mount_hosts: tuple[HostRule, ...] | None = None
    max_retries: int = 7
    backoff_factor: float = 2.0
    backoff_jitter: float = 1.0
    transfer_timeout_s: float | None = None
    client_timeout_s: float = 60.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ConnectionSettings:
        """Read the settings from environment variables.

        An empty variable counts as unset. The page *Settings* has the table of variables.

        Args:
            environ: the variables; ``os.environ`` if ``None``.

        Raises:
            ConfigurationError: a variable has a value that cannot be used; the message names
                the variable and the accepted values.
        """
        # No local variable here may contain a password: pytest prints them with `-l`.
        env = Variables(os.environ if environ is None else environ)
        del environ

        values = {
            attribute: env.converted(name, convert)
            for attribute, (name, convert) in _VARIABLES.items()
            if env.get(name).strip()
        }
        return cls(
            # neither stripped nor converted: blanks can be part of a password
            password=env.get("EXA_BUCKETFS_PASSWORD") or None,
            mount_root_is_explicit="mount_root" in values,
            **values,
        )


class Variables:
    """Environment variables that do not show in ``repr``.

    Args:
        environ: the variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str) -> str:
        """Return the value of a variable, empty if it is not set."""
        return self._environ.get(name, "")

    def converted(self, name: str, convert: Callable[[str, str], Any]) -> Any:
        """Return the value of a variable, converted by ``convert(text, name)``.

        Raises:
            ConfigurationError: the value cannot be used; the error has the variable's name.
        """
        try:
            return convert(self.get(name), name)
        except ConfigurationError as error:
            message = str(error)
        # a new error: the frames of the first show the value, which may be a misplaced password
        failure = ConfigurationError(message)
        failure.variable = name
        raise failure


def _value_error(name: str, accepted: str) -> ConfigurationError:
    # without the value: the password may have been set in the wrong variable
    return ConfigurationError(f"{name} cannot be used: it takes {accepted}.")


def _text(text: str, name: str) -> str:
    del name
    return text.strip()


def _hosts(text: str, name: str) -> tuple[HostRule, ...]:
    return parse_host_list(text, variable=name)


def _host_name(text: str, name: str) -> str:
    host = text.strip()
    if not is_host_name(host):
        raise _value_error(name, "the name in the certificate, for example exacluster.local")
    return host


def _user(text: str, name: str) -> str:
    user = text.strip()
    if ":" in user or not user.isprintable():
        raise _value_error(
            name,
            "a user name without ':', usually w or r; set the password in EXA_BUCKETFS_PASSWORD",
        )
    return user


def parse_boolean(text: str, name: str) -> bool:
    """Convert the text of a variable, such as ``yes`` or ``no``, to a boolean.

    Raises:
        ConfigurationError: it is none of the accepted words.
    """
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise _value_error(name, "yes, y, true, no, n or false") from None


def _fallback(text: str, name: str) -> bool:
    try:
        return {"off": False, "http": True}[text.strip().lower()]
    except KeyError:
        raise _value_error(name, "off or http") from None


def _fingerprint(text: str, name: str) -> str:
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(digits) != _SHA256_HEX_DIGITS or not set(digits) <= set(string.hexdigits):
        raise _value_error(name, "the SHA-256 fingerprint of the certificate, 64 hex digits")
    return digits


def _absolute_path(text: str, name: str) -> str:
    # not stripped, unlike other values: blanks can be part of a path
    if not text.startswith("/") or text != text.strip():
        raise _value_error(
            name, f"an absolute path without blanks around it, by default {DEFAULT_MOUNT_ROOT}"
        )
    return text.rstrip("/") or "/"


def _count(text: str, name: str, *, least: int, most: int) -> int:
    digits = text.strip()
    # int() alone accepts "1_0", "+1" and the digits of other scripts
    if not _DIGITS.fullmatch(digits) or not least <= int(digits) <= most:
        raise _value_error(name, f"a whole number from {least} to {most}")
    return int(digits)


def _retries(text: str, name: str) -> int:
    return _count(text, name, least=0, most=100)


def _workers(text: str, name: str) -> int:
    return _count(text, name, least=1, most=1024)


def _seconds(text: str, name: str) -> float:
    number = text.strip()
    if not _DECIMAL.fullmatch(number):
        raise _value_error(name, "a number of seconds from 0 on")
    return float(number)


def _timeout(text: str, name: str) -> float:
    # -1 means "no limit" in MLflow's own stores (GCS, Azure)
    if text.strip() == "-1":
        return math.inf
    value = _seconds(text, name)
    if value == 0:
        raise _value_error(name, "a number of seconds above 0, or -1 for no limit")
    return value


# The variable behind each attribute, and the function that converts its text.
_VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "user": ("EXA_BUCKETFS_USER", _user),
    "verify_tls": ("EXA_SSL_CERT_VALIDATION", parse_boolean),
    "ca_bundle": ("EXA_BUCKETFS_CA_BUNDLE", _text),
    "tls_hostname": ("EXA_BUCKETFS_TLS_HOSTNAME", _host_name),
    "cert_fingerprint": ("EXA_BUCKETFS_CERT_FINGERPRINT", _fingerprint),
    "allowed_hosts": ("EXA_BUCKETFS_ALLOWED_HOSTS", _hosts),
    "max_workers": ("EXA_BUCKETFS_MAX_WORKERS", _workers),
    "mount_root": ("EXA_BUCKETFS_MOUNT_ROOT", _absolute_path),
    "mount_fallback_http": ("EXA_BUCKETFS_MOUNT_FALLBACK", _fallback),
    "mount_hosts": ("EXA_BUCKETFS_MOUNT_HOSTS", _hosts),
    "max_retries": ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _retries),
    "backoff_factor": ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", _seconds),
    "backoff_jitter": ("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", _seconds),
    "transfer_timeout_s": ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", _timeout),
    "client_timeout_s": ("EXA_BUCKETFS_CLIENT_TIMEOUT", _timeout),
}
