"""The steps that need no network: URI, environment, plugin, mount; advice on names in a URI."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.errors import HostNotAllowedError, InvalidUriError
from mlflow_bucketfs_core.hosts import HostRule, any_rule_matches, check_host_allowed
from mlflow_bucketfs_core.mounted import bucket_udf_path, mounted_path
from mlflow_bucketfs_core.uri import USUAL_BUCKET, USUAL_SERVICE, join_key

from mlflow_bucketfs_plugin.check.report import Finding, StepFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_bucketfs_plugin.check.steps import Facts

_DISTRIBUTION = "mlflow-bucketfs-plugin"
_ENTRY_POINT_GROUP = "mlflow.artifact_repository"

_MLFLOW, _MLFLOW_SKINNY = "mlflow", "mlflow-skinny"
# Failures seen with mlflow-skinny alone, 3.8.1 and 3.17.2: "Model registry functionality is
# unavailable; got unsupported URI 'sqlite:…'", also without a tracking URI; "No module named
# 'flask'", from the server; "No module named 'numpy'" or 'pandas', from log_model.
_SKINNY_LACKS = (
    f"{_MLFLOW_SKINNY} logs files to an MLflow server. For a tracking database on this machine "
    "(sqlite:///…, which is also MLflow's default) and for 'mlflow server': "
    f"pip install {_MLFLOW}\n"
    "It also brings numpy and pandas, which log_model and load_model need."
)

# They limit a step to about 15 s, even if the server stalls.
_MAX_RETRIES = 1
_TRANSFER_TIMEOUT_S = 5.0


def check_uri(facts: Facts) -> Finding:
    """Parse the URI; without a bucket, the step fails, but later steps can use the host.

    Raises:
        StepFailedError: it is not a BucketFS URI.
    """
    try:
        uri = BucketFSUri.parse(facts.text)
    except InvalidUriError as error:
        remedy = (
            "Write it as exa+bfs://host[:port]/service/bucket[/path], with exa+bfss:// for HTTPS."
        )
        raise StepFailedError(Finding(str(error), "failed", remedy)) from error
    facts.host = uri
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
        return Finding(summary, "failed", _names_to_append(uri), details)
    facts.uri = uri
    folder = f"folder '{uri.path}'" if uri.path else "the bucket's root"
    summary = f"service {uri.service}, bucket {uri.bucket}, {folder}"
    return Finding(summary, details=details)


def check_environment(facts: Facts) -> Finding:
    """Read the environment variables, and shorten retries and timeouts.

    Raises:
        ConfigurationError: one of them has an invalid value.
    """
    settings = ConnectionSettings.from_env()
    has_password = settings.password is not None
    details = {"user": settings.user, "password_set": has_password}
    summary = f"user {settings.user}, " + ("a password is set" if has_password else "no password")
    facts.settings = replace(
        settings,
        max_retries=min(settings.max_retries, _MAX_RETRIES),
        transfer_timeout_s=settings.transfer_timeout_s or _TRANSFER_TIMEOUT_S,
    )
    return Finding(summary, details=details)


def check_allowed_hosts(facts: Facts) -> Finding:
    """Check that the URI's host may receive the password.

    Raises:
        StepFailedError: ``EXA_BUCKETFS_ALLOWED_HOSTS`` does not allow it.
    """
    uri, settings = facts.host, facts.settings
    if settings.allowed_hosts is None:
        facts.is_allowed = True
        return Finding("all hosts are allowed: EXA_BUCKETFS_ALLOWED_HOSTS is not set")
    details = {"allowed_hosts": [str(rule) for rule in settings.allowed_hosts]}
    try:
        check_host_allowed(settings.allowed_hosts, uri)
    except HostNotAllowedError as error:
        protocol = "HTTPS" if uri.tls else "plain HTTP"
        raise StepFailedError(
            Finding(
                f"{uri.authority} may not receive the password over {protocol}",
                "failed",
                f"To allow it, add {HostRule.of(uri)} to EXA_BUCKETFS_ALLOWED_HOSTS.",
                details,
            )
        ) from error
    facts.is_allowed = True
    return Finding(f"{uri.authority} is in EXA_BUCKETFS_ALLOWED_HOSTS", details=details)


def check_plugin(facts: Facts) -> Finding:
    """Check that MLflow finds this plugin, and no other, for the scheme.

    It reads the metadata of the installed packages, because importing MLflow takes seconds.
    """
    scheme = facts.host.scheme
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
                f"{scheme}:// is also registered by {', '.join(others)}; MLflow uses the plugin "
                "that it finds last",
                "failed",
                f"pip uninstall {' '.join(others)}",
                details,
            )
        )
    summary = f"{_DISTRIBUTION} {claims[_DISTRIBUTION]} serves {scheme}://"
    if mlflow is None:
        summary += ", but MLflow is not installed"
        return Finding(summary, "warning", f"pip install {_MLFLOW}", details)
    remedy = _SKINNY_LACKS if mlflow == _MLFLOW_SKINNY else None
    return Finding(f"{summary} for {mlflow} {mlflow_version}", "ok", remedy, details)


def _installed_mlflow() -> tuple[str | None, str | None]:
    """Return the name and the version of the installed MLflow distribution."""
    for name in (_MLFLOW, _MLFLOW_SKINNY):  # the full one requires the other
        with suppress(PackageNotFoundError):
            return name, version(name)
    return None, None


def check_mount(facts: Facts) -> Finding:
    """Report whether the bucket is mounted, and whether artifacts are read from the mount."""
    uri, settings = facts.uri, facts.settings
    directory = bucket_udf_path(uri, settings.mount_root)
    is_mounted = Path(directory).is_dir()
    is_meant = settings.mount_hosts is None or any_rule_matches(settings.mount_hosts, uri)
    details = {"directory": directory, "exists": is_mounted, "used": is_mounted and is_meant}
    if is_mounted and not is_meant:
        return Finding(
            f"{directory} exists, but {uri.authority} is not in EXA_BUCKETFS_MOUNT_HOSTS: "
            "reading goes over HTTP",
            details=details,
        )
    if is_mounted:
        here = mounted_path(uri, settings)
        summary = f"reading uses {here or directory} instead of HTTP; writing goes over HTTP"
        missing = (
            f"The folder '{uri.path}' does not exist there: it has not been written or synced yet."
        )
        which = (
            "If that is another cluster's bucket, set EXA_BUCKETFS_MOUNT_HOSTS to the hosts "
            "whose buckets are mounted here."
        )
        notes = ([] if here else [missing]) + ([which] if settings.mount_hosts is None else [])
        return Finding(summary, remedy="\n".join(notes) or None, details=details)
    if settings.mount_root_is_explicit and is_meant:
        return Finding(
            f"{directory} does not exist: reading goes over HTTP",
            "warning",
            "Correct or unset EXA_BUCKETFS_MOUNT_ROOT.",
            details,
        )
    return Finding(
        f"{directory} does not exist, as usual outside a UDF: reading goes over HTTP",
        details=details,
    )


def _names_to_append(uri: BucketFSUri) -> str:
    """Propose the missing names for a URI that ends before the bucket."""
    if uri.service in {"", USUAL_SERVICE}:
        what = "the bucket" if uri.service else "service and bucket"
        usual = replace(uri, service=USUAL_SERVICE, bucket=USUAL_BUCKET)
        return f"Append {what}, on most systems: {usual}"
    return (
        f"If '{uri.service}' is the bucket, put its service before it, on most systems: "
        f"{_with_service(uri)}\n"
        f"If '{uri.service}' is the service, append the bucket."
    )


def unknown_bucket_advice(uri: BucketFSUri, buckets: Sequence[str]) -> str:
    """Propose the intended URI for a bucket that does not exist.

    Args:
        uri: a URI with service and bucket.
        buckets: the existing buckets, as far as the service shows them.
    """
    lines = [f"The buckets there are: {', '.join(buckets)}"] if buckets else []
    if uri.service in buckets:
        lines.append(
            f"'{uri.service}', which the URI gives as the service, is one of them. "
            f"Is the service missing? Then use, on most systems: {_with_service(uri)}"
        )
    elif uri.service == USUAL_SERVICE and buckets:
        bucket = USUAL_BUCKET if USUAL_BUCKET in buckets else buckets[0]
        folder = join_key(uri.bucket, uri.path)
        lines.append(
            f"If '{uri.bucket}' is a folder, the bucket is missing before it: "
            f"{replace(uri, bucket=bucket, path=folder)}"
        )
    else:
        folder = f", folder '{uri.path}'" if uri.path else ""
        lines.append(
            "Is the service or the bucket missing in the URI? "
            f"It is read as service '{uri.service}', bucket '{uri.bucket}'{folder}."
        )
    return "\n".join(lines)


def _with_service(uri: BucketFSUri) -> BucketFSUri:
    """Return the URI with the usual service inserted before its first name."""
    folder = join_key(uri.bucket, uri.path)
    return replace(uri, service=USUAL_SERVICE, bucket=uri.service, path=folder)


def unchecked_service_advice(uri: BucketFSUri, settings: ConnectionSettings) -> str | None:
    """Return a warning that an unusual service name was not checked, unless it is mounted."""
    if not uri.bucket or uri.service == USUAL_SERVICE:
        return None
    if Path(bucket_udf_path(uri, settings.mount_root)).is_dir():
        return None
    return (
        f"The name '{uri.service}' is not checked: over HTTP, the port alone selects the "
        "service.\n"
        f"UDFs see the bucket as {bucket_udf_path(uri)}, so it must be the service's name in the "
        "database's configuration."
    )
