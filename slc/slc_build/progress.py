"""Telling the user what happens, and what went wrong."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STARTED = time.monotonic()
_INTERVAL_S = 15
_WORTH_SAYING = 10_000_000


class SlcBuildError(RuntimeError):
    """A step could not be done; the message says what is missing and how to get it."""


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    sys.stdout.flush()
    # Not through sys.stdout's lock, which a process forked meanwhile would inherit locked
    os.write(1, f"[{time.monotonic() - _STARTED:4.0f} s] {text}\n".encode())


@contextmanager
def watching(directory: Path) -> Iterator[None]:
    """Say every few seconds which large file in the directory is being written."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(_INTERVAL_S):
            say(f"... {_being_written(directory)}")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _being_written(directory: Path) -> str:
    newest, when, size = None, time.time() - _INTERVAL_S, 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                found = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 -- many files
            except FileNotFoundError:
                continue
            if found.st_size > _WORTH_SAYING and found.st_mtime > when:
                newest, when, size = name, found.st_mtime, found.st_size
    return f"{newest}: {size / 1e6:.0f} MB" if newest else "building the images"
