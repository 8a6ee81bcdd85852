"""A few artifacts in a bucket that holds very many others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import curl
from benchmarks.bench import write_random_file
from benchmarks.results import MIB, Row, Target

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.server import Server

_ARTIFACTS = 3


def list_few_among_many(bench: Bench, server: Server) -> list[Row]:
    """List three artifacts; BucketFS sends the names of all."""
    few = bench.directory / "few"
    for index in range(_ARTIFACTS):
        write_random_file(few / f"file-{index}.bin", 1)
    server.crowd(bench.sizes.crowd)
    server.store(few)
    ours, theirs = bench.alternate(
        lambda: bench.observed(server, bench.ours, "list_artifacts"),
        lambda: curl.fetch_listing(server),
    )
    title = f"list {_ARTIFACTS} artifacts in a bucket of {bench.sizes.crowd:,} other keys"
    counterpart = "curl fetching the listing"
    target = Target(least_ratio=0.5, most_requests=1, memory_below_bytes=16 * MIB)
    return [Row(title, counterpart, ours, theirs, target)]
