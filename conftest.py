"""Hooks for all tests of the workspace: their distribution to workers, and pages as tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

_ROOT = Path(__file__).parent

# A worker of pytest-xdist starts its own MLflow server if its tests need one: more
# workers than this cost more than they save.
_MAX_WORKERS = 4

# Files with these prefixes run one after the other in one worker, because they share resources
# that are expensive to start: MLflow servers, or the container in a Docker engine.
_KEPT_TOGETHER = {
    "MLflow servers": ("integration-tests/tests/test_", "integration-tests/tests/udf/"),
    "container": ("integration-tests/tests/slc/",),
}

# A shell that starts a job in the background makes it ignore SIGINT, and all of its children
# inherit that: the tests that press Ctrl-C would wait forever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for ``-n auto``; 0 runs the tests in this process.

    One file cannot be distributed, and one database (``--backend``) cannot be set up twice.
    """
    named = {Path(arg.partition("::")[0]) for arg in config.args}
    single_file = len(named) == 1 and next(iter(named)).is_file()
    if single_file or config.getoption("backend", None):
        return 0
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not available or available == 1:
        return 0
    # one more than processors, because a worker waits a fifth of its time
    return min(available + 1, _MAX_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Distribute the tests by file; files that share something expensive stay together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 -- only in the main process

    class _Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            together = (name for name, start in _KEPT_TOGETHER.items() if file.startswith(start))
            return next(together, file)

    return _Scheduling(config, log)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a page below docs/, and any other page that the command line or testpaths name.

    The tests of a package also run with only its wheel installed, without the pages.
    """
    if file_path.suffix != ".md":
        return None
    named = {Path(arg.partition("::")[0]).resolve() for arg in parent.config.args}
    if file_path not in named and not file_path.is_relative_to(_ROOT / "docs"):
        return None
    from doc_examples.collection import collect_page  # noqa: PLC0415 -- only if there is a page

    return collect_page(_ROOT, file_path, parent)
