"""The same transfers by ``curl``: about the minimum time of protocol, server and machine."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.results import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.bench import Bench

PARALLEL = "curl --parallel --parallel-max 16"


def upload(bench: Bench, key: str, file: Path) -> Sample:
    """PUT a file."""
    return _curl(bench, key, "--upload-file", str(file))


def download(bench: Bench, key: str, target: Path) -> Sample:
    """GET an object into a file."""
    return _curl(bench, key, "--output", str(target))


def fetch_listing(bench: Bench) -> Sample:
    """GET the bucket's listing, and discard it."""
    return _curl(bench, "", "--output", os.devnull)


def version() -> str:
    """Return name and version."""
    completed = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    return " ".join(completed.stdout.split()[:2])


def upload_folder(bench: Bench, prefix: str, directory: Path) -> Sample:
    """PUT the files of a directory with all of its subdirectories, 16 at a time."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    pairs = (
        (f"{_url(bench)}/{prefix}/{path.relative_to(directory).as_posix()}", "upload-file", path)
        for path in files
    )
    return _parallel(bench, directory.with_suffix(".curl"), pairs)


def download_keys(bench: Bench, keys: Iterable[str], target: Path) -> Sample:
    """GET objects into a directory, 16 at a time."""
    pairs = ((f"{_url(bench)}/{key}", "output", target / key) for key in keys)
    return _parallel(bench, target.with_suffix(".curl"), pairs)


def _parallel(bench: Bench, config: Path, transfers: Iterable[tuple[str, str, Path]]) -> Sample:
    lines = [f'url = "{url}"\n{option} = "{path}"\n' for url, option, path in transfers]
    config.write_text("".join(lines), encoding="utf-8")
    started = time.perf_counter()
    _run(bench, *PARALLEL.split()[1:], "--create-dirs", "--config", str(config))
    elapsed = time.perf_counter() - started
    # our clients' times exclude their start; curl reports no such time for many transfers
    started = time.perf_counter()
    subprocess.run(["curl", "--disable", "--version"], stdout=subprocess.DEVNULL, check=True)
    start = time.perf_counter() - started
    config.unlink()
    return Sample(elapsed - start, traffic=bench.traffic())


def _curl(bench: Bench, key: str, *options: str) -> Sample:
    # curl's own time, which excludes the start of the process, as that of our clients does
    printed = _run(bench, "--write-out", "%{stderr}%{time_total}", *options, _url(bench, key))
    return Sample(float(printed.replace(",", ".")))


def _run(bench: Bench, *options: str) -> str:
    command = ["curl", "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    command += ["--user", f"w:{bench.server.buckets[0].write_password}", *options]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise RuntimeError(f"curl failed: {completed.stderr}")
    return completed.stderr


def _url(bench: Bench, key: str = "") -> str:
    bucket = f"{bench.server.url}/{bench.server.buckets[0].name}"
    return f"{bucket}/{key}" if key else bucket
