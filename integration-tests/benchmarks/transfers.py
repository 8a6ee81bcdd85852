"""Transfers of files: many small ones, a large one, and listings."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.bench import FOLDER, write_random_file
from benchmarks.results import MIB, Row, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.contenders import Contender
    from benchmarks.results import Measurement, Sample

_FILE_BYTES = 10_000
_FEW = 3
_MOST_CONNECTIONS = 20
_LEAST_SHARE_OF_CURL = 0.7
_LARGE = "large.bin"
_LARGE_TARGET = Target(least_ratio=0.8, memory_below_bytes=32 * MIB)


def list_folder(bench: Bench) -> list[Row]:
    """List one of several folders."""
    sizes = bench.sizes
    bench.store(_tree(bench))

    def run(contender: Contender) -> Sample:
        return bench.observed(contender, "list_artifacts", "folder-01")

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


def list_few_among_many(bench: Bench) -> list[Row]:
    """List three artifacts; BucketFS sends all keys of the bucket."""
    few = bench.directory / "few"
    for index in range(_FEW):
        write_random_file(few / f"file-{index}.bin", 1)
    bench.server.put_many((key, b"") for key in _other_keys(bench.sizes.crowd))
    bench.store(few)
    ours, theirs = bench.alternate(
        lambda: bench.observed(bench.ours, "list_artifacts"),
        lambda: curl.fetch_listing(bench),
    )
    title = f"list {_FEW} artifacts in a bucket of {bench.sizes.crowd:,} other keys"
    counterpart = "curl fetching the listing"
    target = Target(least_ratio=0.5, most_requests=1, memory_below_bytes=16 * MIB)
    return [Row(title, counterpart, ours, theirs, target)]


def upload(bench: Bench) -> list[Row]:
    """Upload all folders to a server that answers at once."""
    tree, number = _tree(bench), _number_of_files(bench)

    def run_curl() -> Sample:
        bench.server.reset()
        return curl.upload_folder(bench, FOLDER, tree)

    measured = bench.alternate(
        lambda: _upload(bench, bench.ours, tree),
        lambda: _upload(bench, bench.peer, tree),
        run_curl,
    )
    return _rows(bench, f"upload {number} files of 10 kB", measured)


def download(bench: Bench) -> list[Row]:
    """Download all folders."""
    tree, number = _tree(bench), _number_of_files(bench)
    keys = [f"{FOLDER}/{path.relative_to(tree).as_posix()}" for path in tree.rglob("*.bin")]
    bench.store(tree)
    destination = bench.directory / "downloaded"

    def into_new_directory(fetch: Callable[[], Sample]) -> Sample:
        destination.mkdir()
        try:
            return fetch()
        finally:
            shutil.rmtree(destination)

    def run(contender: Contender) -> Sample:
        return bench.observed(contender, "download_artifacts", "", destination)

    def run_curl() -> Sample:
        bench.server.requests.clear()
        return curl.download_keys(bench, keys, destination)

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
        # without a ratio: curl's, in the second row, is the limit
        Row(title, bench.peer.name, ours, peer, traffic),
        Row(title, curl.PARALLEL, ours, parallel_curl, Target(least_ratio=_LEAST_SHARE_OF_CURL)),
    ]


def slow_upload(bench: Bench) -> list[Row]:
    """Upload files to a server that takes a second for each, as BucketFS does."""
    number = bench.sizes.slow_files
    directory = bench.directory / "flat"
    for index in range(number):
        write_random_file(directory / f"file-{index:03}.bin", _FILE_BYTES)
    ours, theirs = bench.alternate(
        lambda: _upload(bench, bench.ours, directory),
        lambda: _upload(bench, bench.peer, directory),
        their_repeats=1,  # it waits a second per file, so that further runs give the same
    )
    title = f"upload {number} files, 1 s per PUT (docker-db profile)"
    return [Row(title, bench.peer.name, ours, theirs, Target(least_ratio=10))]


def large_file(bench: Bench) -> list[Row]:
    """Upload a large file, and download it."""
    size = f"{bench.sizes.large_mib} MiB file"
    key = f"{FOLDER}/{_LARGE}"
    source = bench.directory / _LARGE
    write_random_file(source, bench.sizes.large_mib * MIB)

    def into_empty_bucket(upload: Callable[[], Sample]) -> Sample:
        bench.server.reset()  # replacing a file would cost the server time
        return upload()

    our_up, curl_up = bench.alternate(
        lambda: into_empty_bucket(lambda: bench.observed(bench.ours, "log_artifact", source)),
        lambda: into_empty_bucket(lambda: curl.upload(bench, key, source)),
    )
    source.unlink()
    target = bench.directory / "downloaded" / _LARGE
    target.parent.mkdir()

    def into_new_file(download: Callable[[Path], Sample]) -> Sample:
        try:
            return download(target)
        finally:
            target.unlink(missing_ok=True)

    our_down, curl_down = bench.alternate(
        lambda: into_new_file(
            lambda path: bench.observed(bench.ours, "download_artifacts", _LARGE, path.parent)
        ),
        lambda: into_new_file(lambda path: curl.download(bench, key, path)),
    )
    return [
        Row(f"upload a {size}", "curl", our_up, curl_up, _LARGE_TARGET),
        Row(f"download a {size}", "curl", our_down, curl_down, _LARGE_TARGET),
    ]


def _upload(bench: Bench, contender: Contender, directory: Path) -> Sample:
    bench.server.reset()
    return bench.observed(contender, "log_artifacts", directory)


def _number_of_files(bench: Bench) -> int:
    return bench.sizes.folders * bench.sizes.files_per_folder


def _tree(bench: Bench) -> Path:
    directory = bench.directory / "tree"
    for folder in range(bench.sizes.folders):
        for index in range(bench.sizes.files_per_folder):
            path = directory / f"folder-{folder:02}" / f"file-{index:03}.bin"
            write_random_file(path, _FILE_BYTES)
    return directory


def _other_keys(number: int) -> Iterator[str]:
    for index in range(number):
        run, file = divmod(index, 20)
        run_id = hashlib.sha256(str(run).encode()).hexdigest()[:32]
        yield f"mlflow/{run % 7}/{run_id}/artifacts/model/data/part-{file:05}.parquet"
