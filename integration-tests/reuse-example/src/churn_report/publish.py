"""Publish a folder of reports in BucketFS, with the standard library only."""

from __future__ import annotations

import base64
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

_ATTEMPTS = 3


def publish(folder: Path, bucket_url: str, *, password: str) -> list[str]:
    """Upload every file of a folder, and return the keys.

    Args:
        folder: the folder to upload.
        bucket_url: URL of the bucket, such as ``http://localhost:2580/default``.
        password: the bucket's write password.

    Raises:
        urllib.error.HTTPError: BucketFS refuses, or does not recover within three attempts.
    """
    login = "Basic " + base64.b64encode(f"w:{password}".encode()).decode()
    keys = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = file.relative_to(folder).as_posix()
        _put(f"{bucket_url}/{quote(key)}", file.read_bytes(), login)
        keys.append(key)
    return keys


def _put(url: str, data: bytes, login: str) -> None:
    for attempts_left in reversed(range(_ATTEMPTS)):
        request = urllib.request.Request(url, data=data, method="PUT")  # noqa: S310 -- as configured
        request.add_header("Authorization", login)
        try:
            urllib.request.urlopen(request, timeout=60).close()  # noqa: S310
        except HTTPError as error:
            error.close()
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or not attempts_left:
                raise
        else:
            return
