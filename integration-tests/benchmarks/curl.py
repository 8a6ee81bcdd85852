"""What ``curl`` takes for the same: the time that protocol, server and machine need anyway."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from benchmarks.results import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server


def upload(server: Server, key: str, file: Path) -> Sample:
    """PUT a file."""
    return _curl(server, key, "--upload-file", str(file))


def download(server: Server, key: str, target: Path) -> Sample:
    """GET an object into a file."""
    return _curl(server, key, "--output", str(target))


def fetch_listing(server: Server) -> Sample:
    """GET the bucket's listing, without looking at it."""
    return _curl(server, "", "--output", os.devnull)


def version() -> str:
    """Name and version."""
    completed = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    return " ".join(completed.stdout.split()[:2])


def _curl(server: Server, key: str, *options: str) -> Sample:
    # curl's own clock: it starts when the process is up, as that of our clients does
    command = ["curl", "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    command += ["--user", f"w:{server.password}", "--write-out", "%{stderr}%{time_total}"]
    url = f"{server.url}/{key}" if key else server.url
    completed = subprocess.run(
        [*command, *options, url], capture_output=True, text=True, check=False
    )
    if completed.returncode != 0:
        raise RuntimeError(f"curl failed: {completed.stderr}")
    return Sample(float(completed.stderr.replace(",", ".")))
