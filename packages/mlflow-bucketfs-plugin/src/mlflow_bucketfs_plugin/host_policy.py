"""Restrict the hosts that receive the password.

A client of a tracking server chooses the artifact location of an experiment that it creates.
Without this policy, the server would send its write password to ``exa+bfs://attacker/…``. Since
3.17, MLflow has such a policy for its own schemes (GHSA-mr9f-g8qf-4w4j), but not for plugins.
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
    """Return whether this process is part of a tracking server."""
    return any(name in os.environ for name in _SERVER_ROOT_VARIABLES)


def apply_host_policy(uri: BucketFSUri, settings: ConnectionSettings) -> ConnectionSettings:
    """Return the settings with this process's allowed hosts, after checking the URI's host.

    In a tracking server, these are the hosts and ports of its artifact root and destination, and
    those in ``EXA_BUCKETFS_ALLOWED_HOSTS``; plain HTTP is allowed only if the URI or entry has it.
    Without that list, all hosts are allowed for a scheme that the operator set in
    ``MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES``. Other processes use only the list. Without
    one, they allow all hosts, and log each host after the first one once.

    Args:
        uri: the location of the artifacts.
        settings: the settings from the environment.

    Raises:
        HostNotAllowedError: the URI's host is not allowed.
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
                # raised when the server uses this root
                continue
            rules.append(HostRule.of(root))
    return rules


def _allowed_schemes() -> set[str]:
    listed = os.environ.get(_ALLOWED_SCHEMES_VARIABLE, "")
    return {scheme.strip().lower() for scheme in listed.split(",")}


class _HostsSeen:
    """The hosts that receive the password of a process without ``EXA_BUCKETFS_ALLOWED_HOSTS``.

    It has no lock, because a fork could leave it locked forever.
    """

    def __init__(self) -> None:
        self._seen: dict[HostRule, object] = {}

    def note(self, uri: BucketFSUri) -> None:
        mine = object()
        # per protocol: warn also if the same host receives the password unencrypted
        host = HostRule.of(uri)
        if self._seen.setdefault(host, mine) is mine and len(self._seen) > 1:
            _logger.warning(
                "The password for BucketFS is sent to a further host, %s, because an artifact "
                "location names it. Set EXA_BUCKETFS_ALLOWED_HOSTS to the hosts that may receive "
                "it.",
                host,
            )


_hosts_seen = _HostsSeen()
