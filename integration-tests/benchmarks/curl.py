"""What ``curl`` takes for the same: the time that protocol, server and machine need anyway."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.results import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.server import Server


PARALLEL = "curl --parallel --parallel-max 16"


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


def upload_folder(server: Server, prefix: str, directory: Path) -> Sample:
    """PUT the files of a directory with all of its subdirectories, 16 at a time."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    pairs = (
        (f"{server.url}/{prefix}/{path.relative_to(directory).as_posix()}", "upload-file", path)
        for path in files
    )
    return _parallel(server, directory.with_suffix(".curl"), pairs)


def download_keys(server: Server, keys: Iterable[str], target: Path) -> Sample:
    """GET objects into a directory, 16 at a time."""
    pairs = ((f"{server.url}/{key}", "output", target / key) for key in keys)
    return _parallel(server, target.with_suffix(".curl"), pairs)


def _parallel(server: Server, config: Path, transfers: Iterable[tuple[str, str, Path]]) -> Sample:
    lines = [f'url = "{url}"\n{option} = "{path}"\n' for url, option, path in transfers]
    config.write_text("".join(lines), encoding="utf-8")
    started = time.perf_counter()
    _run(server, *PARALLEL.split()[1:], "--create-dirs", "--config", str(config))
    elapsed = time.perf_counter() - started
    # our clients' clocks start when they are up; curl has none for a number of transfers
    started = time.perf_counter()
    subprocess.run(["curl", "--disable", "--version"], stdout=subprocess.DEVNULL, check=True)
    start = time.perf_counter() - started
    config.unlink()
    return Sample(elapsed - start, traffic=server.traffic())


def _curl(server: Server, key: str, *options: str) -> Sample:
    # curl's own clock: it starts when the process is up, as that of our clients does
    url = f"{server.url}/{key}" if key else server.url
    printed = _run(server, "--write-out", "%{stderr}%{time_total}", *options, url)
    return Sample(float(printed.replace(",", ".")))


def _run(server: Server, *options: str) -> str:
    command = ["curl", "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    command += ["--user", f"w:{server.password}", *options]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise RuntimeError(f"curl failed: {completed.stderr}")
    return completed.stderr
