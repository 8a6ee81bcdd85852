"""The steps of a check as a table, and the loop that runs them, each with a deadline."""

from __future__ import annotations

import copy
import math
import threading
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mlflow_bucketfs_core.errors import BucketFSError, ConfigurationError
from mlflow_bucketfs_core.http.retry import abandoned_by

from mlflow_bucketfs_plugin.check import bucket, local, network
from mlflow_bucketfs_plugin.check.report import Finding, Report, Step, StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings

# A step has two attempts, each of up to one transfer timeout, and 5 s for connections.
_TRIES, _CONNECTIONS_S = 2, 5.0
_LEAST_DEADLINE_S = 15.0


class Facts:
    """The facts that the steps have found so far.

    An attribute exists after a step has set it. A step is skipped if an attribute that it needs
    is missing.

    Args:
        text: the URI as entered.
        read_only: whether to write nothing.

    Attributes:
        host: the URI, even if it ends before the bucket.
        uri: the URI, if it has a bucket.
        settings: the settings from the environment, with short timeouts.
        is_allowed: whether the host may receive the password.
        next_hop: the host and port that this machine connects to.
        is_connected: whether a connection was opened.
        response: the server's response to a request for its buckets; ``None`` if not requested yet.
        buckets: names of the service's buckets, as far as it shows them.
        keys: keys of the objects in the bucket.
        probe: the test object to write.
        is_written: whether the test object was written.
    """

    host: BucketFSUri
    uri: BucketFSUri
    settings: ConnectionSettings
    is_allowed: bool
    next_hop: network.NextHop
    is_connected: bool
    response: network.Response | None
    buckets: tuple[str, ...]
    keys: list[str]
    probe: bucket.ProbeObject
    is_written: bool

    def __init__(self, text: str, *, read_only: bool) -> None:
        self.text = text
        self.read_only = read_only


class _Row(NamedTuple):
    """A row of the table of steps.

    Attributes:
        name: stable name.
        function: runs the step; sets the attributes in ``gives``, and may raise.
        needs: attributes of :class:`Facts` without which the step is skipped.
        gives: attributes that it sets.
        undo: deletes the object that the step wrote, if it exceeded its deadline, or if the check
            is interrupted before the step that deletes the object.
    """

    name: str
    function: Callable[[Facts], Finding]
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    undo: Callable[[Facts], Finding] | None = None


_STEPS = (
    _Row("uri", local.check_uri, gives=("host", "uri")),
    _Row("environment", local.check_environment, gives=("settings",)),
    _Row("plugin", local.check_plugin, needs=("host",)),
    _Row("allowed_hosts", local.check_allowed_hosts, ("host", "settings"), ("is_allowed",)),
    _Row("resolve", network.check_resolve, ("host",), ("next_hop",)),
    _Row("connect", network.check_connect, ("is_allowed", "host", "next_hop"), ("is_connected",)),
    _Row("tls", network.check_tls, ("host", "settings", "is_connected"), ("response",)),
    _Row("service", network.check_service, ("host", "settings", "response"), ("buckets",)),
    _Row("list", bucket.check_list, ("buckets", "uri", "settings"), ("keys",)),
    _Row("path", bucket.check_path, ("uri", "keys"), ("probe",)),
    _Row("write", bucket.check_write, ("probe",), ("is_written",), undo=bucket.check_delete),
    _Row("read_back", bucket.check_read_back, ("is_written",)),
    _Row("delete", bucket.check_delete, ("is_written",)),
    _Row("mount", local.check_mount, ("uri", "settings")),
)


def run_check(uri: str, *, read_only: bool = False, deadline_s: float | None = None) -> Report:
    """Check whether artifacts can be stored at a URI, with the settings of the environment.

    Args:
        uri: root of an artifact store.
        read_only: whether to write nothing.
        deadline_s: seconds that each step may take; by default 15, or more if
            ``MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT`` allows longer waits.

    Returns:
        All steps; those that depend on a failed step are skipped.
    """
    facts = Facts(uri, read_only=read_only)
    with warnings.catch_warnings():
        # steps report the warnings of libraries, such as one for an unverified certificate
        warnings.simplefilter("ignore")
        steps = _take_steps(facts, deadline_s)
    return Report(str(facts.host) if hasattr(facts, "host") else None, read_only, steps)


def _take_steps(facts: Facts, deadline_s: float | None) -> tuple[Step, ...]:
    steps = []
    why_missing: dict[str, str] = {}
    undo: Callable[[Facts], Finding] | None = None
    try:
        for row in _STEPS:
            missing = next((fact for fact in row.needs if not hasattr(facts, fact)), None)
            started = time.monotonic()
            if missing:
                finding = Finding(why_missing[missing], "skipped")
            else:
                undo = row.undo or undo
                finding = _take(row, facts, deadline_s or _deadline_s(facts))
                if row.function is undo or (row.undo and finding.result != "ok"):
                    undo = None  # there is no object to delete
            seconds = round(time.monotonic() - started, 3)
            steps.append(Step.of(row.name, seconds, finding))
            # name the failed step, not the steps that were skipped after it
            reason = (
                finding.summary
                if finding.result == "skipped"
                else f"needs the step '{row.name}', which failed"
            )
            why_missing.update(dict.fromkeys(row.gives, reason))
    except BaseException:  # Ctrl-C
        if undo is not None:
            _within(_LEAST_DEADLINE_S, undo, facts)
        raise
    return tuple(steps)


def _deadline_s(facts: Facts) -> float:
    if not hasattr(facts, "settings"):
        return _LEAST_DEADLINE_S
    timeout_s = facts.settings.transfer_timeout_s or 0.0
    return max(_LEAST_DEADLINE_S, _TRIES * timeout_s + _CONNECTIONS_S)


def _take(row: _Row, facts: Facts, deadline_s: float) -> Finding:
    finding = _within(deadline_s, row.function, facts)
    if finding is not None:
        return finding
    finding = Finding(
        f"not finished after {deadline_s:g} s: the server is slow, or sends without end",
        "failed",
        "Check that the server is BucketFS. To wait longer, set "
        "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT to the seconds that may pass without a byte.",
    )
    if row.undo is not None:
        undone = _within(deadline_s, row.undo, facts)
        if undone is None or undone.result == "failed":
            remedy = f"{finding.remedy}\nDelete the object '{facts.probe.key}', if there is one."
            finding = replace(finding, remedy=remedy)
    return finding


def _within(
    deadline_s: float, function: Callable[[Facts], Finding], facts: Facts
) -> Finding | None:
    """Call a step's function in a thread, to limit its time even if a server sends without end.

    Args:
        deadline_s: seconds to wait. After that, the thread is abandoned: it ends at the next
            block of a transfer, or with the process, and no longer changes the facts.
        function: returns a finding or raises.
        facts: the input of the function, updated with its results.

    Returns:
        The finding, or ``None`` if the deadline passed.
    """
    results: list[Finding | BaseException] = []
    abandoned = threading.Event()
    found = copy.copy(facts)

    def work() -> None:
        try:
            with abandoned_by(abandoned):
                results.append(function(found))
        except StepFailedError as failure:
            results.append(failure.finding)
        except ConfigurationError as error:
            remedy = f"Correct or unset {error.variable}." if error.variable else None
            results.append(Finding(str(error), "failed", remedy))
        except (BucketFSError, OSError) as error:
            results.append(Finding(str(error), "failed"))
        except BaseException as error:  # noqa: BLE001 -- raised by the waiting thread
            results.append(error)

    thread = threading.Thread(target=work, name="mlflow-bucketfs check", daemon=True)
    thread.start()
    try:
        thread.join(None if math.isinf(deadline_s) else deadline_s)
    finally:
        abandoned.set()
    if not results:
        return None
    if isinstance(result := results[0], BaseException):
        raise result
    vars(facts).update(vars(found))
    return result
