"""The cases by the names that ``--only`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import (
    large_file,
    mounted_model,
    scoring,
    small_files,
    udf_process,
)
from benchmarks.results import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench, Sizes
    from benchmarks.results import Cost, Row
    from benchmarks.server import Server


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        run: measures it on an empty server.
        table: the table that the results belong into.
        profile: the server's.
        disk_bytes: temporary disk space that it needs.
    """

    run: Callable[[Bench, Server], list[Row] | list[Cost]]
    table: str = "bench"
    profile: str = "instant"
    disk_bytes: Callable[[Sizes], int] = lambda _sizes: 100 * MIB


CASES = {
    "list": Case(small_files.list_folder),
    "upload": Case(small_files.upload),
    "download": Case(small_files.download),
    "slow-upload": Case(small_files.slow_upload, profile="docker-db"),
    # the file, the server's copy, and a second upload or a download
    "large-file": Case(
        large_file.transfer, disk_bytes=lambda sizes: (3 * sizes.large_mib + 100) * MIB
    ),
    # the server keeps a file per key, which are empty
    "crowded": Case(small_files.list_few_among_many),
    "import": Case(udf_process.import_modules),
    "model": Case(
        mounted_model.load, disk_bytes=lambda sizes: 3 * sizes.model_mb * 10**6 + 100 * MIB
    ),
    # the forest, the server's copy, and one that is downloaded to digest it
    "scoring": Case(scoring.score, disk_bytes=lambda sizes: sizes.model_mb * 10**6 + 300 * MIB),
    "udf": Case(udf_process.costs, table="imports"),
}
