"""The steps that need no network: URI, environment, plugin, mount."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.errors import (
    ConfigurationError,
    HostNotAllowedError,
    InvalidUriError,
)
from mlflow_bucketfs_core.hosts import HostRule, any_rule_matches, check_host_allowed
from mlflow_bucketfs_core.mounted import bucket_udf_path, mounted_path

from mlflow_bucketfs_plugin.check.names_advice import appended_names
from mlflow_bucketfs_plugin.check.report import Finding
from mlflow_bucketfs_plugin.check.steps import StepFailedError

_DISTRIBUTION = "mlflow-bucketfs-plugin"
_ENTRY_POINT_GROUP = "mlflow.artifact_repository"

_MLFLOW, _MLFLOW_SKINNY = "mlflow", "mlflow-skinny"
# What was seen to fail with mlflow-skinny alone, 3.8.1 and 3.17.2: "Model registry functionality
# is unavailable; got unsupported URI 'sqlite:…'", also without a tracking URI; "No module named
# 'flask'", of the server; "No module named 'numpy'" or 'pandas', of log_model.
_SKINNY_LACKS = (
    f"{_MLFLOW_SKINNY} logs files to an MLflow server. For a tracking database on this machine "
    "(sqlite:///…, which is also MLflow's default) and for 'mlflow server': "
    f"pip install {_MLFLOW}\n"
    "It also brings numpy and pandas, which log_model and load_model need."
)

# Somebody waits for the answer: even for a server that stalls it comes within 15 s or so.
_MAX_RETRIES = 1
_TRANSFER_TIMEOUT_S = 5.0


def check_uri(text: str) -> tuple[BucketFSUri, Finding]:
    """Parse the URI; one that lacks the bucket fails, yet says which host to look at.

    Raises:
        StepFailedError: it is not a URI of BucketFS.
    """
    try:
        uri = BucketFSUri.parse(text)
    except InvalidUriError as error:
        remedy = (
            "Write it as exa+bfs://host[:port]/service/bucket[/path], with exa+bfss:// for HTTPS."
        )
        raise StepFailedError(Finding(str(error), "failed", remedy)) from error
    details = {
        "scheme": uri.scheme,
        "host": uri.host,
        "port": uri.port,
        "service": uri.service,
        "bucket": uri.bucket,
        "path": uri.path,
    }
    if not uri.bucket:
        lacks = "no bucket" if uri.service else "neither service nor bucket"
        summary = f"the URI names {lacks}: {uri.scheme}://host[:port]/service/bucket[/path]"
        return uri, Finding(summary, "failed", appended_names(uri), details)
    folder = f"folder '{uri.path}'" if uri.path else "the bucket's root"
    summary = f"service {uri.service}, bucket {uri.bucket}, {folder}"
    return uri, Finding(summary, details=details)


def check_environment() -> tuple[ConnectionSettings, Finding]:
    """Read the environment variables.

    Returns:
        The settings, made impatient.

    Raises:
        StepFailedError: one of them has a value that cannot be used.
    """
    try:
        settings = ConnectionSettings.from_env()
    except ConfigurationError as error:
        summary = str(error)
        variable = re.split(r"\W", summary, maxsplit=1)[0]
        raise StepFailedError(
            Finding(summary, "failed", f"Correct or unset {variable}.")
        ) from error
    has_password = settings.password is not None
    details = {"user": settings.user, "password_set": has_password}
    summary = f"user {settings.user}, " + ("a password is set" if has_password else "no password")
    impatient = replace(
        settings,
        max_retries=min(settings.max_retries, _MAX_RETRIES),
        transfer_timeout_s=settings.transfer_timeout_s or _TRANSFER_TIMEOUT_S,
    )
    return impatient, Finding(summary, details=details)


def check_allowed_hosts(uri: BucketFSUri, settings: ConnectionSettings) -> tuple[bool, Finding]:
    """Make sure that the URI's host may receive the password.

    Raises:
        StepFailedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` does not allow it.
    """
    if settings.allowed_hosts is None:
        return True, Finding("every host may: EXA_BUCKETFS_ALLOWED_HOSTS is not set")
    details = {"allowed_hosts": [str(rule) for rule in settings.allowed_hosts]}
    try:
        check_host_allowed(settings.allowed_hosts, uri)
    except HostNotAllowedError as error:
        protocol = "HTTPS" if uri.tls else "plain HTTP"
        raise StepFailedError(
            Finding(
                f"{uri.authority} may not have the password over {protocol}",
                "failed",
                f"If it may, add {HostRule.of(uri)} to EXA_BUCKETFS_ALLOWED_HOSTS.",
                details,
            )
        ) from error
    return True, Finding(f"{uri.authority} is in EXA_BUCKETFS_ALLOWED_HOSTS", details=details)


def check_plugin(scheme: str) -> tuple[bool, Finding]:
    """Make sure that MLflow finds this plugin, and no other, for the scheme.

    The metadata of what is installed answers that as MLflow would, without the seconds that
    importing MLflow takes.
    """
    claims = {
        str(point.dist.name): point.dist.version
        for point in entry_points(group=_ENTRY_POINT_GROUP, name=scheme)
        if point.dist is not None
    }
    mlflow, mlflow_version = _installed_mlflow()
    details: dict[str, Any] = {
        "mlflow_distribution": mlflow,
        "mlflow_version": mlflow_version,
        "distributions": sorted(claims),
    }
    if _DISTRIBUTION not in claims:
        raise StepFailedError(
            Finding(
                f"{_DISTRIBUTION} is not installed with an entry point for {scheme}://",
                "failed",
                f"Install it into this environment: pip install {_DISTRIBUTION}",
                details,
            )
        )
    if others := sorted(claims.keys() - {_DISTRIBUTION}):
        raise StepFailedError(
            Finding(
                f"{scheme}:// is claimed by {', '.join(others)} too; MLflow takes the plugin that "
                "it happens to find last",
                "failed",
                f"pip uninstall {' '.join(others)}",
                details,
            )
        )
    summary = f"{_DISTRIBUTION} {claims[_DISTRIBUTION]} serves {scheme}://"
    if mlflow is None:
        summary += ", but MLflow is not installed"
        return True, Finding(summary, "warning", f"pip install {_MLFLOW}", details)
    remedy = _SKINNY_LACKS if mlflow == _MLFLOW_SKINNY else None
    return True, Finding(f"{summary} for {mlflow} {mlflow_version}", "ok", remedy, details)


def _installed_mlflow() -> tuple[str | None, str | None]:
    """Return which of MLflow's distributions is installed, and its version."""
    for name in (_MLFLOW, _MLFLOW_SKINNY):  # the full one brings the other along
        with suppress(PackageNotFoundError):
            return name, version(name)
    return None, None


def check_mount(uri: BucketFSUri, settings: ConnectionSettings) -> tuple[bool, Finding]:
    """Tell whether this process sees the bucket as a directory, and what follows from that."""
    directory = bucket_udf_path(uri, settings.mount_root)
    is_mounted = Path(directory).is_dir()
    is_meant = settings.mount_hosts is None or any_rule_matches(settings.mount_hosts, uri)
    details = {"directory": directory, "exists": is_mounted, "used": is_mounted and is_meant}
    if is_mounted and not is_meant:
        return True, Finding(
            f"{directory} exists, but EXA_BUCKETFS_MOUNT_HOSTS lacks {uri.authority}: "
            "reading goes over HTTP",
            details=details,
        )
    if is_mounted:
        here = mounted_path(uri, settings)
        summary = f"reading takes {here or directory} instead of HTTP; writing goes over HTTP"
        missing = f"The folder '{uri.path}' is not there: nothing was written yet, or not synced."
        which = (
            "If that is another cluster's bucket, set EXA_BUCKETFS_MOUNT_HOSTS to the hosts "
            "whose buckets are mounted here."
        )
        notes = ([] if here else [missing]) + ([which] if settings.mount_hosts is None else [])
        return True, Finding(summary, remedy="\n".join(notes) or None, details=details)
    if settings.mount_root_is_explicit and is_meant:
        return True, Finding(
            f"{directory} does not exist: reading goes over HTTP",
            "warning",
            "Correct or unset EXA_BUCKETFS_MOUNT_ROOT.",
            details,
        )
    return True, Finding(
        f"no {directory} here, as everywhere but in a UDF: reading goes over HTTP",
        details=details,
    )
