"""The steps in their order."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mlflow_bucketfs_core import Bucket

from mlflow_bucketfs_plugin.check.local import (
    check_allowed_hosts,
    check_environment,
    check_mount,
    check_plugin,
    check_uri,
)
from mlflow_bucketfs_plugin.check.network import (
    Route,
    check_connect,
    check_resolve,
    check_service,
    check_tls,
)
from mlflow_bucketfs_plugin.check.objects import (
    ProbeObject,
    check_delete,
    check_list,
    check_path,
    check_read_back,
    check_write,
)
from mlflow_bucketfs_plugin.check.report import Finding, Report
from mlflow_bucketfs_plugin.check.steps import Outcome, StepFailedError, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings


def run_check(uri: str, *, read_only: bool = False) -> Report:
    """Check whether artifacts can be kept at a URI, with the variables of the environment.

    Args:
        uri: root of an artifact store.
        read_only: whether to write nothing.

    Returns:
        All steps; those that need one that failed are skipped.
    """
    steps = Steps()
    with warnings.catch_warnings():
        # what a library warns of, such as a certificate that is not verified, is a step's result
        warnings.simplefilter("ignore")
        parsed = _take_steps(steps, uri, read_only=read_only)
    return Report(str(parsed) if parsed else None, read_only, tuple(steps.taken))


def _take_steps(steps: Steps, text: str, *, read_only: bool) -> BucketFSUri | None:
    uri = steps.take("uri", lambda: check_uri(text))
    settings = steps.take("environment", check_environment)
    server = uri.get_even_if_failed  # known even if the URI ends before the bucket
    steps.take("plugin", lambda: check_plugin(server().scheme))
    allowed = steps.take("allowed_hosts", lambda: check_allowed_hosts(server(), settings.get()))
    service = _steps_to_server(steps, server, settings.get, allowed.get)
    _steps_in_bucket(steps, uri.get, settings.get, service.get, read_only=read_only)
    steps.take("mount", lambda: check_mount(uri.get(), settings.get()))
    return uri.value


def _steps_to_server(
    steps: Steps,
    uri: Callable[[], BucketFSUri],
    settings: Callable[[], ConnectionSettings],
    allowed: Callable[[], object],
) -> Outcome[tuple[str, ...]]:
    def connect() -> tuple[Route, Finding]:
        allowed()
        return check_connect(uri(), route.get())

    route = steps.take("resolve", lambda: check_resolve(uri()))
    connected = steps.take("connect", connect)
    ask = steps.take("tls", lambda: check_tls(uri(), settings(), connected.get()))
    return steps.take(
        "service", lambda: check_service(uri(), settings(), connected.get(), ask.get())
    )


def _steps_in_bucket(
    steps: Steps,
    uri: Callable[[], BucketFSUri],
    settings: Callable[[], ConnectionSettings],
    service: Callable[[], tuple[str, ...]],
    *,
    read_only: bool,
) -> None:
    def bucket() -> Bucket:
        service()
        return Bucket(uri(), settings())

    keys = steps.take("list", lambda: check_list(bucket(), uri(), service()))
    path = steps.take("path", lambda: check_path(uri(), keys.get(), read_only=read_only))

    def write() -> tuple[ProbeObject, Finding]:
        if read_only:
            raise StepFailedError(Finding("left out because of --read-only", "skipped"))
        path.get()
        return check_write(bucket(), ProbeObject.below(uri().path))

    probe = steps.take("write", write)
    try:
        steps.take("read_back", lambda: check_read_back(bucket(), probe.get()))
    finally:  # after Ctrl-C too
        steps.take("delete", lambda: check_delete(bucket(), probe.get()))
