"""The command behind ``uv run nox -s bench``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import contenders, report
from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.cases import CASES
from benchmarks.chart import chart
from benchmarks.results import Cost, Row
from benchmarks.server import running_server
from benchmarks.workspace import temporary_space

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.contenders import Contender
    from benchmarks.workspace import Space

_ROOT = Path(__file__).resolve().parents[2]
_CACHE = _ROOT / ".bench"
_TABLES = _ROOT / "docs" / "_generated"
_CHART = _ROOT / "docs" / "_static" / "bench.svg"


def main() -> int:
    """Measure and print the tables; write those that are complete for the documentation."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    _say("Preparing the environments")
    ours, peer, udf = contenders.ours(), contenders.peer(_CACHE), contenders.udf(_CACHE)
    names = options.only or list(CASES)
    with temporary_space(max(CASES[name].disk_bytes(sizes) for name in names)) as space:
        results = _measure(names, sizes, (ours, peer, udf), space)
        arguments = ["--", *sys.argv[1:]] if sys.argv[1:] else []
        command = " ".join(["uv run nox -s bench", *arguments])
        competition = report.competition(ours, peer, space)
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
                _write(_CHART, chart(rows))
    missed = [result for result in results if result.shortfalls()]
    for result in missed:
        shortfalls = ", ".join(result.shortfalls())
        _say(f"NOT REACHED: {result.title}: {shortfalls} (target: {result.target})")
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uv run nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, to try it")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=CASES, help=", ".join(CASES)
    )
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    return parser.parse_args()


def _measure(
    names: Iterable[str],
    sizes: Sizes,
    clients: tuple[Contender, Contender, Contender],
    space: Space,
) -> list[Row | Cost]:
    results: list[Row | Cost] = []
    for name in names:
        _say(f"Measuring: {name}")
        bench = Bench(*clients, sizes, space.clients / name)
        bench.directory.mkdir()
        env = bench.env(TMPDIR=str(space.server))
        with running_server(CASES[name].profile, env) as server:
            results += CASES[name].run(bench, server)
        shutil.rmtree(bench.directory)
    return results


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    _say(f"Written: {path.relative_to(_ROOT)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
