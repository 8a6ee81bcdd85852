"""Messages of errors: control characters in names are escaped."""

from __future__ import annotations

import copy
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_core import BucketFSUri
from mlflow_bucketfs_core.errors import (
    InvalidKeyError,
    InvalidUriError,
    ObjectNotFoundError,
    PathBlockedError,
    TransferError,
    UnsafeEntryError,
    printable,
)
from mlflow_bucketfs_core.mounted import resolve_entry


@given(st.text(st.characters()))  # surrogates too, unlike st.text()
def test_printable_escapes_unprintable_texts_only(text):
    """Every text becomes printable, and a printable one is unchanged."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    assert printable(shown) == shown
    shown.encode()  # raises if it is not UTF-8


@pytest.mark.parametrize("name", ["größe é 模型 😀", "a\\b", ""])
def test_printable_names_are_unchanged(name):
    """Printable characters of other languages are not escaped."""
    assert printable(name) == name


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "\udcff", "\n", "\r"])
@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda bucket, key: bucket.delete(key), id="delete"),
        pytest.param(lambda bucket, key: bucket.keys(key), id="list"),
        pytest.param(lambda bucket, key: BucketFSUri.parse(f"{bucket.uri}/{key}"), id="parse"),
        pytest.param(lambda _, key: BucketFSUri.parse(key), id="no URI"),
    ],
)
def test_names_that_are_refused_are_escaped(bucket, hostile, operation):
    """Control characters and invalid UTF-8 are escaped in errors about invalid keys."""
    with pytest.raises((InvalidKeyError, InvalidUriError)) as caught:
        operation(bucket, f"a{hostile}b")
    assert str(caught.value).isprintable()
    assert ascii(hostile)[1:-1] in str(caught.value)


@pytest.mark.parametrize("hostile", ["\u202e", "\u2028", "\u200b"])
def test_names_that_are_keys_are_escaped(server, bucket, tmp_path, hostile):
    """Characters that are valid in a key but not printable are escaped in errors."""
    key, shown = f"a{hostile}b", f"a{ascii(hostile)[1:-1]}b: "
    with pytest.raises(ObjectNotFoundError) as missing:
        bucket.download_file(key, tmp_path / "x")
    assert shown in str(missing.value)
    server.put(key, b"")
    with pytest.raises(PathBlockedError) as blocked:
        bucket.upload_bytes(f"{key}/x", b"")
    assert str(blocked.value).isprintable()


def test_the_arguments_of_an_error_are_not_escaped():
    """The arguments of an error are unchanged, and an error can be copied."""
    error = copy.copy(TransferError("a\x1bb"))
    assert error.args == ("a\x1bb",)
    assert str(error) == r"a\x1bb"


def test_names_on_a_mount_are_escaped(tmp_path):
    """Names from an unpacked archive are escaped in errors."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a\x1b[2J").symlink_to("/\x1b[31m")
    with os.scandir(tmp_path / "bucket") as entries, pytest.raises(UnsafeEntryError) as caught:
        resolve_entry(next(entries), str(tmp_path / "bucket"))
    assert r"a\x1b[2J leads to /\x1b[31m, out of" in str(caught.value)
