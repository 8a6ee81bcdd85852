"""The measured process: one operation through MLflow's public API, timed from inside.

A script that runs in the environment of our plugin and in that of the counterpart, so it imports
nothing but the standard library and MLflow, and prints its result as JSON on the last line::

    python -I client.py import MODULE
    python -I client.py log_artifacts URI LOCAL_DIRECTORY
    python -I client.py run PREPARATION CODE URI
"""

from __future__ import annotations

import sys
import time


def _import(module: str) -> float:
    started = time.perf_counter()
    __import__(module)
    return time.perf_counter() - started


def _run(preparation: str, code: str, uri: str) -> float:
    names = {"uri": uri}
    compiled = compile(code, "<measured>", "exec")
    exec(preparation, names)  # noqa: S102 -- the benchmark's own
    started = time.perf_counter()
    exec(compiled, names)  # noqa: S102
    return time.perf_counter() - started


def _load_entry_points() -> float:
    """Measure the time that the installed artifact stores add to ``import mlflow``."""
    from importlib.metadata import EntryPoint

    seconds = 0.0
    load = EntryPoint.load

    def timed_load(entry_point: EntryPoint) -> object:
        nonlocal seconds
        started = time.perf_counter()
        try:
            return load(entry_point)
        finally:
            if entry_point.name.startswith("exa"):
                seconds += time.perf_counter() - started

    EntryPoint.load = timed_load  # type: ignore[assignment, method-assign]
    __import__("mlflow")
    return seconds


class _Peak:
    """The growth of this process's resident set, as Linux reports it."""

    def __init__(self) -> None:
        self._start: int | None = None
        try:
            # resets the peak, which the imports have raised
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            self._start = self._read("VmRSS:")
        except OSError:
            pass

    def growth_bytes(self) -> int | None:
        return None if self._start is None else max(0, self._read("VmHWM:") - self._start)

    @staticmethod
    def _read(field: str) -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def _measure_repository(operation: str, uri: str, *arguments: str) -> tuple[float, int | None]:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(uri)
    act = getattr(repository, operation)
    peak = _Peak()
    started = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - started, peak.growth_bytes()


def _measure_loading(uri: str) -> tuple[float, int | None]:
    import mlflow.sklearn
    import sklearn.linear_model  # noqa: F401 -- the model needs it with every transport
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(uri)  # imports its modules before the measurement
    peak = _Peak()
    started = time.perf_counter()
    mlflow.sklearn.load_model(uri)
    return time.perf_counter() - started, peak.growth_bytes()


def main(operation: str, *arguments: str) -> None:
    """Measure one operation and print the result."""
    memory = None
    if operation == "import":
        seconds = _import(*arguments)
    elif operation == "run":
        seconds = _run(*arguments)
    elif operation == "load_entry_points":
        seconds = _load_entry_points()
    elif operation == "load_model":
        seconds, memory = _measure_loading(*arguments)
    else:
        seconds, memory = _measure_repository(operation, *arguments)
    import json  # not earlier: some measured imports include it

    sys.stdout.write(json.dumps({"seconds": seconds, "memory_bytes": memory}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
