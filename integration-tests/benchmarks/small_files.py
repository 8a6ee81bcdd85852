"""Many small files: what a request, a connection and a listing cost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks.bench import write_random_file
from benchmarks.results import Row, Target

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.contenders import Contender
    from benchmarks.results import Sample
    from benchmarks.server import Server

_FILE_BYTES = 10_000
_MOST_CONNECTIONS = 20


def list_folder(bench: Bench, server: Server) -> list[Row]:
    """List one of several folders."""
    sizes = bench.sizes
    server.store(_tree(bench))

    def run(contender: Contender) -> Sample:
        return bench.observed(server, contender, "list_artifacts", "folder-01")

    ours, theirs = bench.alternate(lambda: run(bench.ours), lambda: run(bench.peer))
    return [
        Row(
            f"list a directory of {sizes.files_per_folder} among {_number_of_files(bench)}",
            bench.peer.name,
            ours,
            theirs,
            Target(least_ratio=10, most_requests=1),
        )
    ]


def upload(bench: Bench, server: Server) -> list[Row]:
    """Upload all folders to a server that answers at once."""
    tree, number = _tree(bench), _number_of_files(bench)
    ours, theirs = bench.alternate(
        lambda: _upload(bench, server, bench.ours, tree),
        lambda: _upload(bench, server, bench.peer, tree),
    )
    target = Target(
        least_ratio=3,
        most_requests=number + 1,
        most_listings=1,
        most_connections=_MOST_CONNECTIONS,
    )
    return [Row(f"upload {number} files of 10 kB", bench.peer.name, ours, theirs, target)]


def download(bench: Bench, server: Server) -> list[Row]:
    """Download all folders."""
    number = _number_of_files(bench)
    server.store(_tree(bench))

    def run(contender: Contender) -> Sample:
        destination = bench.directory / "downloaded"
        destination.mkdir()
        try:
            return bench.observed(server, contender, "download_artifacts", "", destination)
        finally:
            shutil.rmtree(destination)

    ours, theirs = bench.alternate(lambda: run(bench.ours), lambda: run(bench.peer))
    target = Target(
        least_ratio=3,
        most_requests=number + 1,
        most_listings=1,
        most_connections=_MOST_CONNECTIONS,
    )
    return [Row(f"download {number} files of 10 kB", bench.peer.name, ours, theirs, target)]


def slow_upload(bench: Bench, server: Server) -> list[Row]:
    """Upload files to a server that takes a second for each, as BucketFS does."""
    number = bench.sizes.slow_files
    directory = bench.directory / "flat"
    for index in range(number):
        write_random_file(directory / f"file-{index:03}.bin", _FILE_BYTES)
    ours, theirs = bench.alternate(
        lambda: _upload(bench, server, bench.ours, directory),
        lambda: _upload(bench, server, bench.peer, directory),
        their_repeats=1,  # it waits a second per file: nothing else could change the result
    )
    title = f"upload {number} files, 1 s per PUT (docker-db profile)"
    return [Row(title, bench.peer.name, ours, theirs, Target(least_ratio=10))]


def _upload(bench: Bench, server: Server, contender: Contender, directory: Path) -> Sample:
    server.reset()
    return bench.observed(server, contender, "log_artifacts", directory)


def _number_of_files(bench: Bench) -> int:
    return bench.sizes.folders * bench.sizes.files_per_folder


def _tree(bench: Bench) -> Path:
    directory = bench.directory / "tree"
    for folder in range(bench.sizes.folders):
        for index in range(bench.sizes.files_per_folder):
            path = directory / f"folder-{folder:02}" / f"file-{index:03}.bin"
            write_random_file(path, _FILE_BYTES)
    return directory
