"""The steps in the bucket: list it, and write, read and delete a small object."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_bucketfs_core import Bucket
from mlflow_bucketfs_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    BucketFSError,
    BucketNotFoundError,
    MissingCredentialsError,
    ObjectNotFoundError,
    TransferError,
)
from mlflow_bucketfs_core.uri import join_key, parent_folders

from mlflow_bucketfs_plugin.check.local import unknown_bucket_advice
from mlflow_bucketfs_plugin.check.report import Finding

if TYPE_CHECKING:
    from mlflow_bucketfs_core import ConnectionSettings

    from mlflow_bucketfs_plugin.check.steps import Facts

_READ_ONLY = "or check with --read-only to write nothing."


@dataclass(frozen=True)
class ProbeObject:
    """The test object that the check writes.

    Attributes:
        key: unique key.
        content: unique binary content, so that any change in transit is detected.
    """

    key: str
    content: bytes

    @classmethod
    def below(cls, folder: str) -> ProbeObject:
        """Return a new probe object in a folder."""
        identity = uuid.uuid4()
        name = f".mlflow-bucketfs-check-{identity}"
        return cls(join_key(folder, name), bytes(range(256)) + identity.bytes)


def check_list(facts: Facts) -> Finding:
    """List the bucket; fail if it does not exist or rejects the password."""
    uri, buckets = facts.uri, facts.buckets
    try:
        keys = _bucket(facts).keys()
    except BucketNotFoundError:
        return Finding(
            f"there is no bucket '{uri.bucket}' at {uri.authority}",
            "failed",
            unknown_bucket_advice(uri, buckets),
            {"buckets": list(buckets)},
        )
    except (AuthenticationError, AccessDeniedError):
        return _unreadable_finding(uri.bucket, facts.settings, buckets)
    facts.keys = keys
    size = sum(len(key.encode("utf-8", "surrogateescape")) + 1 for key in keys)
    details = {"objects": len(keys), "listing_bytes": size}
    return Finding(f"{_count(keys)}, a listing of {size} bytes", details=details)


def _bucket(facts: Facts) -> Bucket:
    return Bucket(facts.uri, facts.settings)


def _unreadable_finding(
    bucket: str, settings: ConnectionSettings, buckets: tuple[str, ...]
) -> Finding:
    details = {"buckets": list(buckets)}
    if settings.password is None:
        return Finding(
            f"the bucket '{bucket}' requires a password, and none is set",
            "failed",
            "Set EXA_BUCKETFS_PASSWORD to the bucket's write password; "
            "or to its read password, together with EXA_BUCKETFS_USER=r",
            details,
        )
    kind, other, user = ("read", "write", "w") if settings.user == "r" else ("write", "read", "r")
    return Finding(
        f"the bucket '{bucket}' rejected the password for user {settings.user}",
        "failed",
        f"Set EXA_BUCKETFS_PASSWORD to the {kind} password of this bucket: each bucket has its "
        f"own.\nIf it is the {other} password, set EXA_BUCKETFS_USER={user}",
        details,
    )


def check_path(facts: Facts) -> Finding:
    """Check that no file has the name of the folder or of one of its parents."""
    path, keys = facts.uri.path, facts.keys
    prefix = f"{path}/" if path else ""
    below = [key for key in keys if key.startswith(prefix)]
    details = {"objects_below": len(below)}
    blocking = set(parent_folders(prefix)).intersection(keys)
    if facts.read_only and blocking == {path}:
        facts.probe = ProbeObject.below(path)
        return Finding(f"'{path}' is a file", details=details)
    if blocking:
        name = min(blocking)
        return Finding(
            f"the file '{name}' is in the way: BucketFS would silently lose everything written "
            "below it",
            "failed",
            "Delete or rename that file, or choose another folder.",
            {**details, "file_in_the_way": name},
        )
    facts.probe = ProbeObject.below(path)
    note = f"{_count(below)} in the folder" if below else "the folder is empty"
    return Finding(f"no file is in the way; {note}", details=details)


def _count(keys: list[str]) -> str:
    return "1 object" if len(keys) == 1 else f"{len(keys)} objects"


def check_write(facts: Facts) -> Finding:
    """Upload the probe object.

    Raises:
        BucketFSError: the upload failed for a reason other than the password.
    """
    if facts.read_only:
        return Finding("disabled by --read-only", "skipped")
    bucket, probe, user = _bucket(facts), facts.probe, facts.settings.user
    name = bucket.uri.bucket
    try:
        bucket.upload_bytes(probe.key, probe.content)
    except MissingCredentialsError:
        return Finding(
            "writing needs a password, and none is set",
            "failed",
            f"Set EXA_BUCKETFS_PASSWORD to the write password of the bucket '{name}', {_READ_ONLY}",
        )
    except (AuthenticationError, AccessDeniedError):
        hint = (
            "The user r only reads: set EXA_BUCKETFS_USER=w and EXA_BUCKETFS_PASSWORD"
            if user == "r"
            else "The password is wrong, or it is the read password; a public bucket can be read "
            "with any password. Set EXA_BUCKETFS_PASSWORD"
        )
        return Finding(
            f"user {user} may not write to the bucket '{name}' with this password",
            "failed",
            f"{hint} to the write password of the bucket '{name}', {_READ_ONLY}",
        )
    except TransferError:
        # the object may have been stored without a response
        with suppress(BucketFSError):
            bucket.delete(probe.key)
        raise
    facts.is_written = True
    size = len(probe.content)
    return Finding(f"wrote {size} bytes", details={"key": probe.key, "bytes": size})


def check_read_back(facts: Facts) -> Finding:
    """Download the probe object and compare its content.

    Raises:
        BucketFSError: it cannot be read.
    """
    try:
        content = b"".join(_bucket(facts).iter_content(facts.probe.key))
    except ObjectNotFoundError:
        return Finding("BucketFS accepted the object, but does not have it", "failed")
    if content != facts.probe.content:
        return Finding(
            f"the content read ({len(content)} bytes) is not the content written",
            "failed",
            "A proxy between here and BucketFS may have changed the content.",
        )
    return Finding("read the same bytes")


def check_delete(facts: Facts) -> Finding:
    """Delete the probe object."""
    key = facts.probe.key
    try:
        _bucket(facts).delete(key)
    except BucketFSError as error:
        return Finding(str(error), "failed", f"Delete the object '{key}' yourself.")
    return Finding("deleted (BucketFS keeps that name locked for up to 30 s)")
