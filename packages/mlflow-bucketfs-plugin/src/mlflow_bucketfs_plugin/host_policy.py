"""Which hosts may receive the password.

Whoever may create an experiment at a tracking server chooses its artifact location. Without this
policy the server would connect to ``exa+bfs://attacker/…`` and hand over its write password.
MLflow has such a policy for its own schemes since 3.17 (GHSA-mr9f-g8qf-4w4j), not for plugins'.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_bucketfs_core.errors import InvalidUriError
from mlflow_bucketfs_core.hosts import HostRule, check_host_allowed
from mlflow_bucketfs_core.uri import BucketFSUri, is_bucketfs_uri

if TYPE_CHECKING:
    from mlflow_bucketfs_core.settings import ConnectionSettings

_logger = logging.getLogger(__name__)

# `mlflow server` exports these to its workers and jobs (mlflow.store.artifact.host_policy).
_SERVER_ROOT_VARIABLES = ("_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION")
_ALLOWED_SCHEMES_VARIABLE = "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES"


def is_tracking_server_process() -> bool:
    """Return whether this process works on behalf of a tracking server."""
    return any(name in os.environ for name in _SERVER_ROOT_VARIABLES)


def apply_host_policy(uri: BucketFSUri, settings: ConnectionSettings) -> ConnectionSettings:
    """Return the settings with the hosts that are allowed in this process, the URI's among them.

    In a tracking server these are the hosts and ports of its own artifact root and destination
    and those in ``EXA_BUCKETFS_ALLOWED_HOSTS``, each over plain HTTP only if its URI or entry
    says so. Without such a list, all hosts are allowed for a scheme that the operator listed in
    ``MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES``. Elsewhere the list alone counts; without
    one every host is allowed, and each after the first of a process is logged once.

    Args:
        uri: where artifacts are about to be read or written.
        settings: from the environment.

    Raises:
        HostNotAllowedError: the URI's host is not among them.
    """
    if is_tracking_server_process():
        if settings.allowed_hosts is None and uri.scheme in _allowed_schemes():
            return settings
        own = tuple(_own_hosts())
        settings = replace(settings, allowed_hosts=(*own, *(settings.allowed_hosts or ())))
    elif settings.allowed_hosts is None and settings.password is not None:
        _hosts_seen.note(uri)
    check_host_allowed(settings.allowed_hosts, uri)
    return settings


def _own_hosts() -> list[HostRule]:
    rules = []
    for name in _SERVER_ROOT_VARIABLES:
        if is_bucketfs_uri(text := os.environ.get(name, "")):
            try:
                root = BucketFSUri.parse(text)
            except InvalidUriError:
                # the server's own use of this root will raise the error
                continue
            rules.append(HostRule.of(root))
    return rules


def _allowed_schemes() -> set[str]:
    listed = os.environ.get(_ALLOWED_SCHEMES_VARIABLE, "")
    return {scheme.strip().lower() for scheme in listed.split(",")}


class _HostsSeen:
    """Hosts that a client process without a list has sent its password to.

    Without a lock, which a fork could leave locked for ever.
    """

    def __init__(self) -> None:
        self._seen: dict[HostRule, object] = {}

    def note(self, uri: BucketFSUri) -> None:
        mine = object()
        # by protocol too: that the same host gets it unencrypted is worth the same warning
        host = HostRule.of(uri)
        if self._seen.setdefault(host, mine) is mine and len(self._seen) > 1:
            _logger.warning(
                "The password for BucketFS goes to a further host, %s, because an artifact "
                "location names it. Set EXA_BUCKETFS_ALLOWED_HOSTS to the hosts that may have it.",
                host,
            )


_hosts_seen = _HostsSeen()
