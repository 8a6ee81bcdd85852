"""Many small files: what a request, a connection and a listing cost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.bench import write_random_file
from benchmarks.results import MIB, Row, Target
from benchmarks.server import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.contenders import Contender
    from benchmarks.results import Measurement, Sample
    from benchmarks.server import Server

_FILE_BYTES = 10_000
_FEW = 3
_MOST_CONNECTIONS = 20
_LEAST_SHARE_OF_CURL = 0.7


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


def list_few_among_many(bench: Bench, server: Server) -> list[Row]:
    """List three artifacts; BucketFS sends the names of all."""
    few = bench.directory / "few"
    for index in range(_FEW):
        write_random_file(few / f"file-{index}.bin", 1)
    server.crowd(bench.sizes.crowd)
    server.store(few)
    ours, theirs = bench.alternate(
        lambda: bench.observed(server, bench.ours, "list_artifacts"),
        lambda: curl.fetch_listing(server),
    )
    title = f"list {_FEW} artifacts in a bucket of {bench.sizes.crowd:,} other keys"
    counterpart = "curl fetching the listing"
    target = Target(least_ratio=0.5, most_requests=1, memory_below_bytes=16 * MIB)
    return [Row(title, counterpart, ours, theirs, target)]


def upload(bench: Bench, server: Server) -> list[Row]:
    """Upload all folders to a server that answers at once."""
    tree, number = _tree(bench), _number_of_files(bench)

    def run_curl() -> Sample:
        server.reset()
        server.forget_requests()
        return curl.upload_folder(server, FOLDER, tree)

    measured = bench.alternate(
        lambda: _upload(bench, server, bench.ours, tree),
        lambda: _upload(bench, server, bench.peer, tree),
        run_curl,
    )
    return _rows(bench, f"upload {number} files of 10 kB", measured)


def download(bench: Bench, server: Server) -> list[Row]:
    """Download all folders."""
    tree, number = _tree(bench), _number_of_files(bench)
    keys = [f"{FOLDER}/{path.relative_to(tree).as_posix()}" for path in tree.rglob("*.bin")]
    server.store(tree)
    destination = bench.directory / "downloaded"

    def into_new_directory(fetch: Callable[[], Sample]) -> Sample:
        destination.mkdir()
        try:
            return fetch()
        finally:
            shutil.rmtree(destination)

    def run(contender: Contender) -> Sample:
        return bench.observed(server, contender, "download_artifacts", "", destination)

    def run_curl() -> Sample:
        server.forget_requests()
        return curl.download_keys(server, keys, destination)

    measured = bench.alternate(
        lambda: into_new_directory(lambda: run(bench.ours)),
        lambda: into_new_directory(lambda: run(bench.peer)),
        lambda: into_new_directory(run_curl),
    )
    return _rows(bench, f"download {number} files of 10 kB", measured)


def _rows(bench: Bench, title: str, measured: tuple[Measurement, ...]) -> list[Row]:
    ours, peer, parallel_curl = measured
    traffic = Target(
        most_requests=_number_of_files(bench) + 1,
        most_listings=1,
        most_connections=_MOST_CONNECTIONS,
    )
    return [
        # how much faster than the peer says less than how far from the limit: no target
        Row(title, bench.peer.name, ours, peer, traffic),
        Row(title, curl.PARALLEL, ours, parallel_curl, Target(least_ratio=_LEAST_SHARE_OF_CURL)),
    ]


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
