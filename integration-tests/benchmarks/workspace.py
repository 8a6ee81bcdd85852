"""Temporary space: enough of it, and given back whatever happens."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GB = 10**9
_MEMORY = Path("/dev/shm")  # noqa: S108 -- a directory with a random name is made in it
_PREFIX = "mlflow-bucketfs-bench-"
_POLITE_ENDS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Space:
    """Two empty directories.

    Attributes:
        clients: on the disk for temporary files, as users have it.
        server: in memory where there is enough, since the server's disk is not what is measured.
    """

    clients: Path
    server: Path

    @property
    def server_is_in_memory(self) -> bool:
        """Whether the server's disk has no influence."""
        return self.server.is_relative_to(_MEMORY)


@contextmanager
def temporary_space(needed_bytes: int) -> Iterator[Space]:
    """Provide space, given back when the block ends, also by Ctrl-C or a polite kill.

    Args:
        needed_bytes: what must be free.

    Raises:
        SystemExit: it is not.
    """
    disk = Path(tempfile.gettempdir())
    free = shutil.disk_usage(disk).free
    if free < needed_bytes:
        sys.exit(
            f"The benchmark needs {needed_bytes / _GB:.1f} GB in {disk}, where "
            f"{free / _GB:.1f} GB are free. Set TMPDIR to a directory on another file system, "
            "or use --quick, or choose a case with --only."
        )
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= needed_bytes
    for number in _POLITE_ENDS:
        signal.signal(number, _end)
    with ExitStack() as stack:
        clients, server = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)))
            for parent in (disk, _MEMORY if in_memory else disk)
        )
        yield Space(clients, server)


def _end(number: int, _frame: object) -> None:
    # once: nox, uv and the terminal each send one, and the second would disturb the removal
    for each in _POLITE_ENDS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)
