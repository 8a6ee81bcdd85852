"""Temporary disk space: enough of it, and given back whatever happens."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GB = 10**9


@contextmanager
def temporary_space(needed_bytes: int) -> Iterator[Path]:
    """Provide an empty directory, removed when the block ends, also by Ctrl-C or a polite kill.

    Args:
        needed_bytes: what must be free.

    Raises:
        SystemExit: it is not.
    """
    root = Path(tempfile.gettempdir())
    free = shutil.disk_usage(root).free
    if free < needed_bytes:
        sys.exit(
            f"The benchmark needs {needed_bytes / _GB:.1f} GB in {root}, where "
            f"{free / _GB:.1f} GB are free. Set TMPDIR to a directory on another file system, "
            "or use --quick, or choose a case with --only."
        )
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mlflow-bucketfs-bench-") as directory:
        yield Path(directory)
