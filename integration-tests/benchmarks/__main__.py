"""The command behind ``uv run nox -s bench``."""

from __future__ import annotations

import argparse
import gc
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from mlflow_bucketfs_testing import BucketFSServer

from benchmarks import contenders, report, scoring, transfers, udf_process
from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.results import MIB, Cost, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.contenders import Contender

_ROOT = Path(__file__).resolve().parents[2]
_CACHE = _ROOT / ".bench"
_TABLES = _ROOT / "docs" / "_generated"
_CHART = _ROOT / "docs" / "_static" / "bench.svg"
_GB = 10**9
_PREFIX = "mlflow-bucketfs-bench-"
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Case:
    """A case of the benchmark.

    Attributes:
        run: measures on an empty server.
        table: the table that shows the results.
        profile: the server's profile.
        disk_bytes: returns the temporary disk space that it needs.
    """

    run: Callable[[Bench], list[Row] | list[Cost]]
    table: str = "bench"
    profile: str = "instant"
    disk_bytes: Callable[[Sizes], int] = lambda _sizes: 100 * MIB


CASES = {
    "list": Case(transfers.list_folder),
    "upload": Case(transfers.upload),
    "download": Case(transfers.download),
    "slow-upload": Case(transfers.slow_upload, profile="docker-db"),
    # the file, the server's copy, and a further upload or download
    "large-file": Case(
        transfers.large_file, disk_bytes=lambda sizes: (3 * sizes.large_mib + 100) * MIB
    ),
    # the server stores an empty file for each key
    "crowded": Case(transfers.list_few_among_many),
    "import": Case(udf_process.import_modules),
    "model": Case(
        udf_process.load_model, disk_bytes=lambda sizes: 3 * sizes.model_mb * 10**6 + 100 * MIB
    ),
    # the forest, the server's copy, and a download to compute its digest
    "scoring": Case(scoring.score, disk_bytes=lambda sizes: sizes.model_mb * 10**6 + 300 * MIB),
    "udf": Case(udf_process.costs, table="imports"),
}


def main() -> int:
    """Measure and print the tables; write those that are complete for the documentation."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    # the server runs in this process: a collection of all imported modules would take 0.2 s
    gc.collect()
    gc.freeze()
    _say("Preparing the environments")
    ours, peer, udf = contenders.ours(), contenders.peer(_CACHE), contenders.udf(_CACHE)
    names = options.only or list(CASES)
    needed = max(CASES[name].disk_bytes(sizes) for name in names)
    with _temporary_space(needed) as (directory, server_directory):
        results = _measure(names, sizes, (ours, peer, udf), (directory, server_directory))
        arguments = ["--", *sys.argv[1:]] if sys.argv[1:] else []
        command = " ".join(["uv run nox -s bench", *arguments])
        competition = report.competition(ours, peer, server_directory)
    rows = [result for result in results if isinstance(result, Row)]
    costs = [result for result in results if isinstance(result, Cost)]
    tables = {}
    if rows:
        tables["bench"] = f"{report.table(rows)}\n{report.surroundings(command, competition)}"
    if costs:
        installed = report.surroundings(command, {"installed": udf.versions()})
        tables["imports"] = f"{report.cost_table(costs)}\n{installed}"
    sys.stdout.write("\n".join(tables.values()))
    for table, text in tables.items():
        complete = all(name in names for name, case in CASES.items() if case.table == table)
        if complete and not options.quick:
            _write(_TABLES / f"{table}.md", text)
            if table == "bench":
                _write(_CHART, report.chart(rows))
    missed = [result for result in results if result.shortfalls()]
    for result in missed:
        shortfalls = ", ".join(result.shortfalls())
        _say(f"NOT REACHED: {result.title}: {shortfalls} (target: {result.target})")
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uv run nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a quick test")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=CASES, help=", ".join(CASES)
    )
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    return parser.parse_args()


def _measure(
    names: Iterable[str],
    sizes: Sizes,
    clients: tuple[Contender, Contender, Contender],
    space: tuple[Path, Path],
) -> list[Row | Cost]:
    parent, server_directory = space
    results: list[Row | Cost] = []
    for name in names:
        _say(f"Measuring: {name}")
        case, directory = CASES[name], parent / name
        directory.mkdir()
        with _server(case.profile, server_directory) as server:
            results += case.run(Bench(*clients, sizes, directory, server))
        shutil.rmtree(directory)
    return results


@contextmanager
def _server(profile: str, directory: Path) -> Iterator[BucketFSServer]:
    # without data_dir, which would write a line of the journal for each object
    server = BucketFSServer(profile=profile)
    with mock.patch.object(tempfile, "tempdir", str(directory)):
        server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _temporary_space(needed_bytes: int) -> Iterator[tuple[Path, Path]]:
    """Make directories for clients and server, removed also after Ctrl-C or SIGTERM.

    The server's is in memory if there is enough, because its disk is not to be measured.

    Raises:
        SystemExit: the disk has not enough free space.
    """
    disk = Path(tempfile.gettempdir())
    free = shutil.disk_usage(disk).free
    if free < needed_bytes:
        sys.exit(
            f"The benchmark needs {needed_bytes / _GB:.1f} GB in {disk}, where "
            f"{free / _GB:.1f} GB are free. Set TMPDIR to a directory on another file system, "
            "or use --quick, or choose a case with --only."
        )
    in_memory = report.MEMORY.is_dir() and shutil.disk_usage(report.MEMORY).free >= needed_bytes
    for number in _END_SIGNALS:
        signal.signal(number, _end)
    with ExitStack() as stack:
        clients, server = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)))
            for parent in (disk, report.MEMORY if in_memory else disk)
        )
        yield clients, server


def _end(number: int, _frame: object) -> None:
    # nox, uv and the terminal each send a signal: a second one would interrupt the removal
    for each in _END_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    _say(f"Written: {path.relative_to(_ROOT)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
