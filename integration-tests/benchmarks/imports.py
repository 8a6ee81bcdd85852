"""What importing costs: every UDF process, and every ``import mlflow``, pays it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import Row, Target

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.server import Server

_REPEATS = 7
_TARGET = Target(most_seconds=0.05)

# The module of the counterpart that a UDF imports, for udf_path, load_model_with_fallback etc.
_PEER_MODULE = "exasol.mlflow_plugin.artifacts.bucketfs_connector"


def import_modules(bench: Bench, server: Server) -> list[Row]:
    """Import in a fresh process."""
    del server
    return [
        _row(bench, f"`import {module}`", f"`import {_PEER_MODULE}`", (module, _PEER_MODULE))
        for module in ("mlflow_bucketfs_core", "mlflow_bucketfs_core.mounted")
    ] + [
        _row(bench, "the entry points, during `import mlflow`", bench.peer.name, None),
    ]


def _row(bench: Bench, title: str, counterpart: str, modules: tuple[str, str] | None) -> Row:
    env = bench.env()
    ours = ("import", modules[0]) if modules else ("load_entry_points",)
    theirs = ("import", modules[1]) if modules else ("load_entry_points",)
    # once before: installers do not always compile
    bench.ours.measure(env, *ours)
    bench.peer.measure(env, *theirs)
    our_runs, their_runs = bench.alternate(
        lambda: bench.ours.measure(env, *ours),
        lambda: bench.peer.measure(env, *theirs),
        repeats=_REPEATS,
    )
    return Row(title, counterpart, our_runs, their_runs, _TARGET)
