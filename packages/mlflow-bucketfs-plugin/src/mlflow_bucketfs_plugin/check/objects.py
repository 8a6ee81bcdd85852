"""The steps in the bucket: list it, and write, read and delete a small object."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

from mlflow_bucketfs_plugin.check.names_advice import for_unknown_bucket
from mlflow_bucketfs_plugin.check.report import Finding
from mlflow_bucketfs_plugin.check.steps import StepFailedError

if TYPE_CHECKING:
    from mlflow_bucketfs_core import Bucket, BucketFSUri

_READ_ONLY = "or check with --read-only if nothing is to be written."


@dataclass(frozen=True)
class ProbeObject:
    """The object that is written.

    Attributes:
        key: unique.
        content: unique, and no text, so that every change on the way is noticed.
    """

    key: str
    content: bytes

    @classmethod
    def below(cls, folder: str) -> ProbeObject:
        """Make one in a folder."""
        identity = uuid.uuid4()
        name = f".mlflow-bucketfs-check-{identity}"
        return cls(join_key(folder, name), bytes(range(256)) + identity.bytes)


def check_list(
    bucket: Bucket, uri: BucketFSUri, buckets: tuple[str, ...]
) -> tuple[list[str], Finding]:
    """List the bucket, for which a private one wants a password.

    Args:
        bucket: what to list.
        uri: what was asked for, with the folder in the bucket.
        buckets: names of the buckets that the service told.

    Returns:
        The keys in the bucket.
    """
    try:
        keys = bucket.keys()
    except BucketNotFoundError as error:
        summary = f"there is no bucket '{uri.bucket}' at {uri.authority}"
        advice = for_unknown_bucket(uri, buckets)
        known = {"buckets": list(buckets)}
        raise StepFailedError(Finding(summary, "failed", advice, known)) from error
    except (AuthenticationError, AccessDeniedError) as error:
        raise StepFailedError(_unreadable(bucket, buckets)) from error
    size = sum(len(key.encode("utf-8", "surrogateescape")) + 1 for key in keys)
    details = {"objects": len(keys), "listing_bytes": size}
    return keys, Finding(f"{_count(keys)}, a listing of {size} bytes", details=details)


def _unreadable(bucket: Bucket, buckets: tuple[str, ...]) -> Finding:
    name, settings = bucket.uri.bucket, bucket.settings
    details = {"buckets": list(buckets)}
    if settings.password is None:
        return Finding(
            f"the bucket '{name}' wants a password, and none is set",
            "failed",
            "Set EXA_BUCKETFS_PASSWORD to the bucket's write password; "
            "or to its read password, together with EXA_BUCKETFS_USER=r",
            details,
        )
    kind, other, user = ("read", "write", "w") if settings.user == "r" else ("write", "read", "r")
    return Finding(
        f"the bucket '{name}' refuses the password for user {settings.user}",
        "failed",
        f"Set EXA_BUCKETFS_PASSWORD to the {kind} password of this bucket: each bucket has its "
        f"own.\nIf it is the {other} password, set EXA_BUCKETFS_USER={user}",
        details,
    )


def check_path(uri: BucketFSUri, keys: list[str], *, read_only: bool) -> tuple[bool, Finding]:
    """Make sure that no file has the name of the folder or of one above it."""
    prefix = f"{uri.path}/" if uri.path else ""
    below = [key for key in keys if key.startswith(prefix)]
    details = {"objects_below": len(below)}
    blocking = set(parent_folders(prefix)).intersection(keys)
    if read_only and blocking == {uri.path}:
        return True, Finding(f"'{uri.path}' is a file", details=details)
    if blocking:
        name = min(blocking)
        raise StepFailedError(
            Finding(
                f"the file '{name}' is in the way: BucketFS would silently lose everything written "
                "below it",
                "failed",
                "Delete or rename that file, or choose another folder.",
                {**details, "file_in_the_way": name},
            )
        )
    note = f"{_count(below)} there" if below else "nothing is there yet"
    return True, Finding(f"no file is in the way; {note}", details=details)


def _count(keys: list[str]) -> str:
    return "1 object" if len(keys) == 1 else f"{len(keys)} objects"


def check_write(bucket: Bucket, probe: ProbeObject) -> tuple[ProbeObject, Finding]:
    """Upload the probe object.

    Raises:
        BucketFSError: for another reason than the password.
    """
    settings = bucket.settings
    try:
        bucket.upload_bytes(probe.key, probe.content)
    except MissingCredentialsError as error:
        raise StepFailedError(
            Finding(
                "writing needs a password, and none is set",
                "failed",
                "Set EXA_BUCKETFS_PASSWORD to the write password of the bucket "
                f"'{bucket.uri.bucket}', {_READ_ONLY}",
            )
        ) from error
    except (AuthenticationError, AccessDeniedError) as error:
        hint = (
            "The user r only reads: set EXA_BUCKETFS_USER=w and EXA_BUCKETFS_PASSWORD"
            if settings.user == "r"
            else "The password is wrong, or it is the read password; a public bucket lets "
            "everybody read, whatever the password. Set EXA_BUCKETFS_PASSWORD"
        )
        raise StepFailedError(
            Finding(
                f"user {settings.user} may not write to the bucket '{bucket.uri.bucket}' with this "
                "password",
                "failed",
                f"{hint} to the write password of the bucket '{bucket.uri.bucket}', {_READ_ONLY}",
            )
        ) from error
    except (TransferError, KeyboardInterrupt):
        # the object may be there although nothing said so
        with suppress(BucketFSError):
            bucket.delete(probe.key)
        raise
    size = len(probe.content)
    return probe, Finding(f"wrote {size} bytes", details={"key": probe.key, "bytes": size})


def check_read_back(bucket: Bucket, probe: ProbeObject) -> tuple[bool, Finding]:
    """Download the probe object and compare.

    Raises:
        BucketFSError: it cannot be read.
    """
    try:
        content = b"".join(bucket.iter_content(probe.key))
    except ObjectNotFoundError as error:
        raise StepFailedError(
            Finding("BucketFS accepted the object, but does not have it", "failed")
        ) from error
    if content != probe.content:
        raise StepFailedError(
            Finding(
                f"what came back ({len(content)} bytes) is not what was written",
                "failed",
                "Something between here and BucketFS changes what passes through: a proxy?",
            )
        )
    return True, Finding("the same bytes came back")


def check_delete(bucket: Bucket, probe: ProbeObject) -> tuple[bool, Finding]:
    """Delete the probe object."""
    try:
        bucket.delete(probe.key)
    except BucketFSError as error:
        remedy = f"Delete the object '{probe.key}' yourself."
        raise StepFailedError(Finding(str(error), "failed", remedy)) from error
    return True, Finding("deleted (BucketFS keeps that name locked for up to 30 s)")
