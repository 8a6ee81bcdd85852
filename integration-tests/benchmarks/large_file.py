"""One large file: throughput and memory, against ``curl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.bench import write_random_file
from benchmarks.results import MIB, Row, Target
from benchmarks.server import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.results import Sample
    from benchmarks.server import Server

_NAME = "large.bin"
_KEY = f"{FOLDER}/{_NAME}"
_TARGET = Target(least_ratio=0.8, memory_below_bytes=32 * MIB)


def transfer(bench: Bench, server: Server) -> list[Row]:
    """Upload a file, and download it."""
    size = f"{bench.sizes.large_mib} MiB file"
    source = bench.directory / _NAME
    write_random_file(source, bench.sizes.large_mib * MIB)

    def into_empty_bucket(upload: Callable[[], Sample]) -> Sample:
        server.reset()  # or the server would remove the file that is replaced
        return upload()

    our_up, curl_up = bench.alternate(
        lambda: into_empty_bucket(
            lambda: bench.observed(server, bench.ours, "log_artifact", source)
        ),
        lambda: into_empty_bucket(lambda: curl.upload(server, _KEY, source)),
    )
    source.unlink()
    target = bench.directory / "downloaded" / _NAME
    target.parent.mkdir()

    def into_new_file(download: Callable[[Path], Sample]) -> Sample:
        try:
            return download(target)
        finally:
            target.unlink(missing_ok=True)

    our_down, curl_down = bench.alternate(
        lambda: into_new_file(
            lambda path: bench.observed(
                server, bench.ours, "download_artifacts", _NAME, path.parent
            )
        ),
        lambda: into_new_file(lambda path: curl.download(server, _KEY, path)),
    )
    return [
        Row(f"upload a {size}", "curl", our_up, curl_up, _TARGET),
        Row(f"download a {size}", "curl", our_down, curl_down, _TARGET),
    ]
